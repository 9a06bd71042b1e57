"""What is drawn and counted from a run: each module makes one kind of file and knows nothing of the others.

``ANALYSES`` is the table: a row ``name -> "module:function"``. Every function returns bytes, text
or plain data; ``storage`` writes them. Pictures are drawn without pyplot, so that the back end
and the style that a user has chosen stay as they are.
"""

ANALYSES: dict[str, str] = {
    "cost": "cifar_lab.analysis.cost:model_cost",
    "confusion": "cifar_lab.analysis.confusion:save_confusion",
    "report": "cifar_lab.analysis.report:save_report",
    "curves": "cifar_lab.analysis.curves:save_curves",
    "samples": "cifar_lab.analysis.samples:save_samples",
}
