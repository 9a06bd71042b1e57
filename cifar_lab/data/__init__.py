"""Data sets, their splits, and the path of their images to the device.

A loader is ``load(config: DataConfig) -> Source``; one that also takes ``stop`` and ``progress``
is handed both. Everything after it (splits, batches, augmentation) is the same for all.
"""

DATASETS: dict[str, str] = {
    "cifar10": "cifar_lab.data.cifar:load_cifar10",
    "cifar100": "cifar_lab.data.cifar:load_cifar100",
    "digits": "cifar_lab.data.digits:load_digits",
    "folder": "cifar_lab.data.folder:load_folder",
}
