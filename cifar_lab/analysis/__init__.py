"""What is drawn and counted from a run, one kind of thing in each module.

``ANALYSES`` is the table of what `cifar-lab analyze` makes of a finished run: a row ``name -> "module:function"``.
Every function takes a run and options and returns pictures, texts and numbers (``made.py``); it writes nothing. Pictures are
drawn without pyplot, so that the back end and the style that a user has chosen stay as they are.
"""

ANALYSES: dict[str, str] = {
    "curves": "cifar_lab.analysis.curves:curves",
    "confusion": "cifar_lab.analysis.confusion:confusion",
    "classes": "cifar_lab.analysis.classes:classes",
    "calibration": "cifar_lab.analysis.calibration:calibration",
    "samples": "cifar_lab.analysis.samples:samples",
    "samples_per_class": "cifar_lab.analysis.samples:samples_per_class",
    "samples_worst": "cifar_lab.analysis.samples:samples_worst",
    "samples_uncertain": "cifar_lab.analysis.samples:samples_uncertain",
    "features": "cifar_lab.analysis.features:features",
    "kernels": "cifar_lab.analysis.features:kernels",
    "findings": "cifar_lab.analysis.findings:findings",
}
