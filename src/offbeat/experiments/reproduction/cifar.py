"""The field's own benchmark: ResNet-20 on CIFAR-10, partitions by Dirichlet, as arXiv:2102.04761 has them."""

from offbeat.experiments.reproduction.part import Paper, Part, Picture

TITLE = "ResNet-20 on CIFAR-10, sixteen agents"
ABOUT = (
    "ResNet-20 with GroupNorm in two groups, sixteen agents, minibatches of 32, crops and flips, Nesterov "
    "momentum 0.9: as arXiv:2102.04761 has it, but for the learning rate, which is constant, and weight "
    "decay, of which there is none. Data by Dirichlet 0.1, 1 and 10, shards of equal size; agents alike, one "
    "of them ten times slower in computing, in sending, and all of different speed.",
    "Every algorithm is run with four learning rates and three seeds; all of them are in the table, so that "
    "each algorithm's best can be read off in each world. The best of four by the seeds that are shown is a "
    "little too good.",
)
FIXED = {
    "task": "cifar10", "model": "resnet20", "agents": 16, "batch": 32, "augment": "crop+flip",
    "optimizer": "nesterov:0.9", "until": 30000, "eval_every": 500, "eval_samples": 10000, "target": 0.8,
}  # fmt: skip
GRID = {
    "topology": ["ring", "exponential", "torus"],
    "partition": ["dirichlet:0.1", "dirichlet:1", "dirichlet:10"],
    "case": ["base", "comp-straggler", "comm-straggler"],
    "algorithm": ["adsgd", "adpsgd", "dsgd", "allreduce"],
    "seed": [0, 1, 2], "lr": [0.01, 0.03, 0.1, 0.3],
}  # fmt: skip

BENCHMARK = Part(
    "resnet20", TITLE, ABOUT,
    [{"fixed": FIXED, "grid": GRID},
     {"fixed": {**FIXED, "speeds": "lognormal:0.5"}, "grid": {**GRID, "case": ["base"]}}],
    {"fixed": {"task": "digits", "width": 2, "augment": "flip", "until": 6, "eval_every": 2,
               "eval_samples": 50, "batch": 8, "seed": 0, "lr": 0.03, "topology": "ring", "target": 0.3},
     "grid": {"partition": ["dirichlet:0.1", "dirichlet:10"], "algorithm": ["adsgd", "dsgd"],
              "case": ["base"]}},
    (),
    (Picture("accuracy", "Test accuracy of the average model over time, on the ring.", "accuracy",
             by="partition", only={"topology": "ring", "case": "base"}),),
)  # fmt: skip

CIFAR = Paper("cifar", TITLE, {BENCHMARK.name: BENCHMARK})
