"""The evaluation of arXiv:2505.10322 (ADSGD): its claims, and the grids of runs that answer them."""

from offbeat.experiments.reproduction.adsgd_claims import (
    CASES,
    FORM,
    RFAST,
    biased,
    elsewhere,
    falling,
    four_models,
    larger_where_more_alike,
    less_memory,
    less_traffic,
    only_adsgd_beats_the_baselines,
    sending_straggler,
    slow_sending,
    sooner_than_asynchronous,
    sooner_than_synchronous,
    speed_up,
    stragglers,
)
from offbeat.experiments.reproduction.adsgd_measured import INTERNET
from offbeat.experiments.reproduction.adsgd_vgg import VGG
from offbeat.experiments.reproduction.part import Claim, Paper, Part, Picture

COUNTED = (
    Claim("A1", "an update sends 50 % less than that of existing tracking methods", less_traffic,
          "what is counted: a copy to each neighbour"),
    Claim("A2", "memory: 70 % less, which tracking methods need over three times as much of", less_memory,
          "what is counted: vectors kept at most, the gradient among them"),
    Claim("A3", "Algorithm 3 keeps 4 models, however many neighbours there are", four_models),
)  # fmt: skip

SCALES = Claim(
    "A17", "on a ring the speed-up is near-linear up to 128 agents", lambda _: elsewhere("scaling")
)
RATES = Claim("A19", "rates O(K^-1/2) of ASBCD and O(K^-1/3) of ADSGD", lambda _: elsewhere("theory"))
ALIKE = Claim(
    "A18", "the more uniform the data, the larger is what ADSGD gains", larger_where_more_alike,
    "over whom: the paper does not say; each is shown",
)  # fmt: skip

ASYNCHRONOUS = (
    Claim("A4", "ADSGD is at 89 % at least 50 % sooner than the other asynchronous ones, in all cases",
          sooner_than_asynchronous, RFAST),
    Claim("A5", "with a sending straggler it saves over 85 % of R-FAST's time", sending_straggler, RFAST),
    Claim("A6", "where all send slowly, R-FAST does not get to 89 %, and does not diverge", slow_sending,
          f"{RFAST}; the end of the runs"),
    Claim("A7", "ADSGD saves 28 % to 75 % of DSGD's time", sooner_than_synchronous, FORM),
    Claim("A8", "with a straggler AD-PSGD never gets to 89 %", biased,
          "the form of AD-PSGD: it averages while it computes (its own paper's)"),
    Claim("A9", "without stragglers, of the asynchronous ones only ADSGD beats the baselines",
          only_adsgd_beats_the_baselines, RFAST),
    Claim("A10", "with a sending straggler DSGD beats AD-PSGD and R-FAST; with a computing one every "
          "asynchronous method beats DSGD", stragglers, RFAST),
)  # fmt: skip

READINGS = (
    "Multi-class logistic regression on MNIST with a non-convex regulariser, nine agents in a 3x3 grid, "
    "cases as in arXiv:2505.10322; learning rate 0.01, minibatches of 32. Times are until the average model "
    "has 89 % test accuracy, medians over seeds with the smallest and the largest; a run ends there.",
    "Open in the paper, and ours: lambda = 0.001, Metropolis weights, gamma and lognormal delays, the "
    "straggler at the centre of the grid and slow in what it sends, newest models first in the queue.",
)
EVALUATED = {"task": "mnist", "agents": 9, "topology": "grid", "target": 0.89, "lr": 0.01, "until": 40000,
             "eval_every": 200, "stop_at": "target"}  # fmt: skip

LR = Part(
    "lr", "ADSGD, arXiv:2505.10322: logistic regression, five cases", READINGS,
    [{
        "fixed": EVALUATED,
        "grid": {"skew": [1.0, 0.5, 0.0], "case": [*CASES],
                 "algorithm": ["adsgd", "adpsgd", "rfast", "rfast:matched", "dsgd", "allreduce"],
                 "seed": [0, 1, 2, 3, 4]},
    }],
    {"fixed": {"task": "digits", "target": 0.9, "until": 6000, "seed": 0, "skew": 1.0, "eval_every": 100}},
    (*COUNTED, *ASYNCHRONOUS, SCALES, ALIKE, RATES),
    (
        Picture("accuracy", "Test accuracy of the average model in each case, all data sorted by label.",
                "accuracy", by="case", only={"partition": "skew:1"}),
        Picture("time", "Time to the target in each case, all data sorted by label.", "time_to_target",
                by="case", only={"partition": "skew:1"}),
    ),
)  # fmt: skip

HETEROGENEITY = Part(
    "heterogeneity", "ADSGD, arXiv:2505.10322: from uniform to sorted data", READINGS,
    [{
        "fixed": EVALUATED,
        "grid": {"skew": [0.0, 0.25, 0.5, 0.75, 1.0], "case": ["base", "comp-straggler", "comm-straggler"],
                 "algorithm": ["adsgd", "adpsgd", "rfast", "rfast:matched", "dsgd"], "seed": [0, 1, 2]},
    }],
    {"fixed": {"task": "digits", "target": 0.9, "until": 6000, "seed": 0, "eval_every": 100},
     "grid": {"skew": [0.0, 1.0], "case": ["comp-straggler"], "algorithm": ["adsgd", "rfast", "dsgd"]}},
    (ALIKE,),
    (Picture("time", "Time to the target over the share of the data that is sorted.", "time_to_target",
             x="skew", by="case"),),
)  # fmt: skip

SIZES = [1, 2, 4, 8, 16, 32, 64, 128]
SCALED = {"task": "mnist", "topology": "ring", "target": "loss=0.5", "until": 12000, "eval_every": 20,
          "stop_at": "target"}  # fmt: skip

SCALING = Part(
    "scaling", "ADSGD, arXiv:2505.10322: from 1 to 128 agents on a ring",
    (
        "Time until the training loss of the average model is 0.5, logistic regression on MNIST, case base, "
        "on a ring; the speed-up is that over one agent, paired by seed. Near-linear, as it is read here, is "
        "half of the number of agents, or more.",
        "The paper gives no learning rate for it but 0.01, and no partition. Shown: 0.01 for every number of "
        "agents, on uniform data; 0.01 n on uniform data; and 0.01 n on sorted data. R-FAST is in the first; "
        "its rate is n times the others', as it is everywhere here, and so 0.01 n.",
    ),
    [
        {"fixed": {**SCALED, "skew": 0.0, "lr": 0.01},
         "grid": {"algorithm": ["adsgd", "adpsgd", "rfast", "dsgd", "allreduce"], "agents": SIZES,
                  "seed": [0, 1, 2]}},
        {"fixed": {**SCALED, "lr": "0.01n"},
         "grid": {"skew": [0.0, 1.0], "algorithm": ["adsgd", "adpsgd", "dsgd", "allreduce"], "agents": SIZES,
                  "seed": [0, 1, 2]}},
    ],
    {"fixed": {"task": "digits", "target": "loss=1.5", "until": 800, "seed": 0, "eval_every": 4},
     "grid": {"agents": [1, 4, 16], "algorithm": ["adsgd", "dsgd"]}},
    (Claim("A17", "on a ring the speed-up is near-linear up to 128 agents", speed_up,
           "how the learning rate grows with n, and how alike the agents' data are"),),
    (
        Picture("fixed", "Speed-up over one agent, learning rate 0.01 (R-FAST 0.01 n), uniform data.",
                "speedup", x="agents", only={"lr_said": None, "partition": "skew:0"}, log="xy"),
        Picture("uniform", "Speed-up over one agent, learning rate 0.01 n, uniform data.", "speedup",
                x="agents", only={"lr_said": "0.01n", "partition": "skew:0"}, log="xy"),
        Picture("sorted", "Speed-up over one agent, learning rate 0.01 n, sorted data.", "speedup",
                x="agents", only={"lr_said": "0.01n", "partition": "skew:1"}, log="xy"),
        Picture("loss", "Training loss of ADSGD over time, learning rate 0.01 n, uniform data.", "loss",
                only={"algorithm": "adsgd", "lr_said": "0.01n", "partition": "skew:0"}),
    ),
)  # fmt: skip

TABLE2 = Part(
    "table2", "ADSGD, arXiv:2505.10322: memory and traffic",
    ("What an agent keeps and sends, counted on short runs with 2, 4 and 8 neighbours; "
     "'offbeat theory --table2' has all algorithms, with formulas.",),
    [], {}, COUNTED,
)  # fmt: skip

FALLING = {"agents": 9, "metrics": "gradient_norm", "stop_at": "until"}
SEEDS = {"seed": [0, 1, 2, 3, 4]}

THEORY = Part(
    "theory", "ADSGD, arXiv:2505.10322: rates",
    (
        "Nine agents: runs of K updates with learning rates that fall as the theorems have it, K^-1/2 for "
        "ASBCD and K^-1/3 for ADSGD. All agents of ASBCD have the gradient of f, so each has all data "
        "(logistic regression on digits, complete graph); those of ADSGD have f_i of their own (random "
        "quadratics with noise, grid). What is measured is the squared norm of the gradient at the average "
        "model, its mean over the run. The theorems are bounds: a run may fall faster, so that they could be "
        "refuted here, not proved.",
    ),
    [
        *({"fixed": {**FALLING, "task": "digits", "partition": "copies", "topology": "complete",
                     "algorithm": "asbcd", "until": 50.0 * 4**k, "lr": 0.4 / 2**k},
           "grid": SEEDS} for k in range(5)),
        *({"fixed": {**FALLING, "task": "quadratic", "topology": "grid", "algorithm": "adsgd",
                     "until": 50.0 * 8**k, "lr": 0.4 / 2**k},
           "grid": SEEDS} for k in range(4)),
    ],
    {"fixed": {"seed": 0}},
    (Claim("A19", "rates O(K^-1/2) of ASBCD and O(K^-1/3) of ADSGD", falling,
           "what is measured: a bound holds for all functions, a run is of one"),),
)  # fmt: skip

ADSGD = Paper(
    "adsgd", "ADSGD, arXiv:2505.10322",
    {part.name: part for part in (LR, VGG, SCALING, HETEROGENEITY, TABLE2, THEORY, INTERNET)},
)  # fmt: skip
