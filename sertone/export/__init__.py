"""Export models to bundles that run without PyTorch.

bundles.py           the whole export, checked at the end
exportable.py        the form in which any model enters the export
from_checkpoint.py   checkpoints of Sertone as one module, with temperature and scales
from_huggingface.py  audio-classification checkpoints of Hugging Face
heads.py             their heads, and encoder and head as one module
onnx_graph.py        torch -> ONNX
precision.py         int8 and bf16
convolutions.py      int8 convolutions, as matrix products
parity.py            the bundle compared with torch, over lengths
precision_check.py   int8 or bf16 compared with fp32, on a corpus
card.py              the bundle's model card
bundle_cache.py      the folder of any model; Hugging Face models are exported once and kept
"""
