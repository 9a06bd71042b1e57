"""Every setting that our own code reads: type, unit, range and default, each declared once.

Hydra composes these (``schema.py``), a person overrides them (``train.batch_size=64``), and
``rules.check`` refuses what is out of range before anything is created. Settings that only a
component reads (``model.*``, ``optimizer.*``, ``schedule.*``) are declared by the signature
of its builder instead. 0 means off, null means not given.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
NORMALIZATIONS = ("cifar", "imagenet", "half", "unit", "data")
POLICIES = ("none", "autoaugment", "randaugment", "trivialaugment")
RELATIONS = ("higher", "lower", "equivalent", "not_lower", "between", "worst_classes", "most_confused")
TTA = ("none", "flip", "flip_shift")
MONITORS = ("val_loss", "val_accuracy", "train_loss", "train_accuracy")


def _setting(
    default: Any, doc: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A field with its one-line documentation and its legal range (both ends included) or choices."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataConfig:
    """Which pictures, and how they are split."""

    name: str = _setting("cifar10", "row of the DATASETS table")
    root: str | None = _setting(None, "folder of the data set; null: $CIFAR10_ROOT for CIFAR-10, else a cache folder")
    download: bool = _setting(True, "download what is missing; false: only look in root")
    sources: list[str] = _setting([], "https addresses of the archive, tried in this order")
    subset: int = _setting(0, "use at most this many training images, and as many of val and of test; 0: all", low=0)
    train_batches: list[int] = _setting([], "CIFAR-10 only: train on these data_batch files, 1 to 5; empty: all")
    split: str = _setting(
        "stratified", "how validation images are chosen: by class, or the last ones as Keras does", choices=("stratified", "tail")
    )
    val_fraction: float = _setting(0.1, "share of the training images held out for validation; 0: none", low=0.0, high=0.9)
    test_fraction: float = _setting(
        0.2, "share held out for testing where a data set has no test split of its own", low=0.01, high=0.9
    )
    split_seed: int = _setting(
        0, "seed of the splits, of label noise and of the long tail, separate from the run's seed", low=0, high=2**31 - 1
    )
    label_noise: float = _setting(
        0.0,
        "chance of each training image to get the label of another class, all equally likely; val and test stay clean; 0: off",
        low=0.0,
        high=1.0,
    )
    imbalance_factor: float = _setting(
        1.0,
        "long tail: training images of the first class per one of the last, exponentially fewer between (arXiv:1901.05555); "
        "val and test stay as they are; 1: off",
        low=1.0,
        high=100_000.0,
    )
    image_size: int = _setting(32, "data=folder: pictures are stored at this many pixels a side", low=4, high=1024)
    input_size: int = _setting(
        0, "pixels a side that the model sees, resized on the device after augmentation; 0: as stored", low=0, high=1024
    )
    normalize: str = _setting(
        "cifar",
        "pixel statistics: CIFAR's, ImageNet's (for its weights), 0.5 / 0.5, plain 0 to 1, or measured on the training part",
        choices=NORMALIZATIONS,
    )


@dataclass
class AugmentConfig:
    """What happens to training images only; every image gets its own draw."""

    name: str = _setting("none", "name of this preset")
    crop_padding_px: int = _setting(0, "pad by this many pixels, then crop back at a random place; 0: off", low=0, high=64)
    crop_padding_mode: str = _setting("zero", "what the padding holds", choices=("zero", "reflect"))
    flip_probability: float = _setting(0.0, "chance of a left-right flip; 0: off", low=0.0, high=1.0)
    flip_alternating: bool = _setting(
        False, "draw the flip once, then mirror every image in every other epoch: it is seen both ways equally often"
    )
    policy: str = _setting(
        "none",
        "random operations on the bytes: AutoAugment's for CIFAR-10, RandAugment's or TrivialAugment's (wide)",
        choices=POLICIES,
    )
    randaugment_ops: int = _setting(2, "policy=randaugment: operations done to each image, one after the other", low=1, high=16)
    randaugment_magnitude: int = _setting(9, "policy=randaugment: strength of all operations, of 0 to 30", low=0, high=30)
    jitter_brightness: float = _setting(0.0, "brightness times 1 plus or minus up to this; 0: off", low=0.0, high=10.0)
    jitter_contrast: float = _setting(0.0, "contrast times 1 plus or minus up to this; 0: off", low=0.0, high=10.0)
    jitter_saturation: float = _setting(0.0, "color saturation times 1 plus or minus up to this; 0: off", low=0.0, high=10.0)
    jitter_hue: float = _setting(0.0, "hue turned by up to this share of the color circle; 0: off", low=0.0, high=0.5)
    cutout_px: int = _setting(0, "side of one square set to 0 after normalization at a random place; 0: off", low=0, high=256)
    erase_probability: float = _setting(
        0.0, "chance of one rectangle set to 0 after normalization, of random size, shape and place; 0: off", low=0.0, high=1.0
    )
    erase_min_area: float = _setting(0.02, "smallest share of the picture that is erased", low=0.0, high=1.0)
    erase_max_area: float = _setting(0.33, "largest share of the picture that is erased", low=0.0, high=1.0)
    mixup_alpha: float = _setting(
        0.0,
        "blend pairs of images and their labels by Beta(alpha, alpha) shares; 0: off; with cutmix each gets one of the two",
        low=0.0,
        high=100.0,
    )
    cutmix_alpha: float = _setting(
        0.0,
        "cover a rectangle of 1 - Beta(alpha, alpha) of the area by another image, labels likewise; 0: off",
        low=0.0,
        high=100.0,
    )


@dataclass
class TrainConfig:
    """The loop: how long, how much at once, at what precision, when to stop and what to keep."""

    epochs: int = _setting(
        20, "passes over the training images; 0: evaluate only; may be raised on a finished run", low=0, high=100_000
    )
    batch_size: int = _setting(128, "images per forward pass", low=1, high=65536)
    accumulation_steps: int = _setting(
        1, "batches per optimiser step; the effective batch is batch_size times this", low=1, high=4096
    )
    drop_last: bool = _setting(False, "leave out the last, smaller batch of an epoch")
    eval_batch_size: int = _setting(500, "images per forward pass in evaluation", low=1, high=65536)
    eval_every_epochs: int = _setting(1, "validate every so many epochs, and after the last", low=1, high=100_000)
    precision: str = _setting(
        "auto", "auto: bf16 where the device has it, fp32 for nets under 16 channels; fp16 uses a loss scale", choices=PRECISIONS
    )
    channels_last: bool = _setting(True, "memory layout of images and convolutions: NHWC (true) or NCHW")
    deterministic: bool = _setting(False, "bit-equal repeats on a GPU, slower; on a CPU repeats are bit-equal anyway")
    label_smoothing: float = _setting(0.0, "share of the target spread over all classes; 0: off", low=0.0, high=0.99)
    grad_clip_norm: float = _setting(0.0, "largest norm of all gradients together; 0: off", low=0.0)
    ema_decay: float = _setting(
        0.0, "decay per step of an exponential moving average of the weights, used for evaluation; 0: off", low=0.0, high=0.999999
    )
    tta: str = _setting(
        "none",
        "test-time augmentation of the final predictions on val and test: flip averages a picture and its mirror image, "
        "flip_shift those of two pictures moved by a pixel as well",
        choices=TTA,
    )
    monitor: str = _setting(
        "val_accuracy", "column of metrics.jsonl that picks the best epoch and that patience looks at", choices=MONITORS
    )
    select: str = _setting(
        "best", "weights that are tested: of the best epoch by monitor, or of the last", choices=("best", "last")
    )
    patience_epochs: int = _setting(0, "stop after this many epochs without a better monitor; 0: off", low=0)
    min_delta: float = _setting(0.0, "a monitor must be better by more than this to count", low=0.0)
    convergence_epochs: int = _setting(0, "stop when train_loss, averaged over this many epochs, no longer falls; 0: off", low=0)
    convergence_tolerance: float = _setting(0.01, "relative fall of train_loss that counts as falling", low=0.0, high=1.0)
    checkpoint_every_s: float = _setting(
        60.0, "seconds between checkpoints within an epoch, beside the one at each epoch's end; 0: only that one", low=0.0
    )
    latency_s: float = _setting(
        1.0, "most seconds spent at the end of a run on timing the model, short runs spend less; 0: off", low=0.0, high=3600.0
    )
    keep: str = _setting(
        "all", "checkpoints left behind by a finished run: all (last two and best), best or none", choices=("all", "best", "none")
    )
    keep_features: bool = _setting(
        True, "keep a frozen model's features in the cache folder (up to 4 GiB of them), for later runs and one that goes on"
    )


@dataclass
class TrackerConfig:
    """Where curves go beside metrics.jsonl."""

    name: str = _setting("none", "none, tensorboard or mlflow", choices=("none", "tensorboard", "mlflow"))
    uri: str | None = _setting(None, "mlflow: tracking store; null: sqlite:///outputs/mlflow.db")
    project: str = _setting("cifar-lab", "mlflow: experiment that the run is filed under")


@dataclass
class SweepConfig:
    """How the jobs of a sweep are run; nothing that a run computes."""

    workers: int = _setting(
        0, "jobs at once; 0: one for each GPU, or on a CPU one for each core that has 2 GiB of memory", low=0, high=1024
    )
    job_timeout: float = _setting(0.0, "seconds after which a job is ended and counted as failed; 0: off", low=0.0)


@dataclass
class ClaimConfig:
    """A statement about a study's variants that its report confirms, refutes or leaves open."""

    text: str = _setting("", "the statement in words")
    source: str = _setting("", "who made it")
    metric: str = _setting("test_accuracy", "what is compared: a column of report.csv")
    variant: str = _setting("", "the variant that it is about; empty: the baseline")
    against: str = _setting("", "the variant that it is compared with; empty: the baseline")
    relation: str = _setting(
        "higher",
        "higher or lower than against; equivalent: within the margin; not_lower: lower by less than the margin; between low and "
        "high; worst_classes: these classes have the lowest recall; most_confused: the first class is taken for the second most",
        choices=RELATIONS,
    )
    margin: float | None = _setting(None, "difference that matters, in the metric's unit; null: study.margin")
    low: float | None = _setting(None, "between: the lowest value that agrees with the claim")
    high: float | None = _setting(None, "between: the highest value that agrees with the claim")
    classes: list[str] = _setting([], "worst_classes and most_confused: names of classes")


@dataclass
class StudyConfig:
    """What a sweep is to find out; nothing that a run computes."""

    question: str = _setting("", "what is asked, in words")
    metric: str = _setting("test_accuracy", "what variants are judged by: a column of report.csv")
    margin: float = _setting(0.005, "difference of the metric that would matter; accuracies are fractions", low=0.0)
    baseline: str = _setting("", "variant that the others are compared with, as key=value; empty: the first of each key")
    base_lr: float | None = _setting(None, "learning rate of all variants that do not set their own; null: the recipe's")
    claims: list[ClaimConfig] = _setting([], "statements that the report judges")


@dataclass
class Component:
    """A named part and the keywords for its builder, already checked against the builder's signature."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Config:
    """One run. ``model``, ``optimizer`` and ``schedule`` are typed by the signature of their builder."""

    seed: int = _setting(0, "seed of initialisation, data order, augmentation and dropout", low=0, high=2**31 - 1)
    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps")
    threads: int = _setting(0, "CPU threads; 0: torch's choice", low=0, high=1024)
    init_from: str | None = _setting(None, "run folder or checkpoint whose weights this run starts from")
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: Component = field(default_factory=lambda: Component("small_cnn"))
    optimizer: Component = field(default_factory=lambda: Component("adam"))
    schedule: Component = field(default_factory=lambda: Component("constant"))
    train: TrainConfig = field(default_factory=TrainConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    study: StudyConfig = field(default_factory=StudyConfig)


def to_plain(config: Config) -> dict[str, Any]:
    """The configuration as nested dicts, lists and scalars, as config.yaml holds it; parts are ``{name, **settings}``."""
    plain = asdict(config)
    for kind in ("model", "optimizer", "schedule"):
        part = plain[kind]
        plain[kind] = {"name": part["name"], **{k: list(v) if isinstance(v, tuple) else v for k, v in part["settings"].items()}}
    return plain


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value})
    return flat
