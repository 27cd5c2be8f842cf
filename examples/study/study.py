"""Torus or exponential graph, on Fashion-MNIST split by Dirichlet(0.1)? README.md beside it says more."""

import offbeat

if __name__ == "__main__":  # the processes that share the work import this file
    result = offbeat.compare(
        "adsgd,adpsgd,dsgd,allreduce", task="fashion-mnist", agents=16, partition="dirichlet:0.1",
        over={"topology": ["torus", "exponential"]}, speeds="lognormal:0.5", seeds=3, target=0.7,
        until=300, eval_every=10, lr="tuned", tune_grid=[0.03, 0.1, 0.3], tune_seeds=1, workers=2,
    )  # fmt: skip
    result.figure("accuracy", by="topology", band="std", width=6.9).save("study.pdf")
    print(result)
