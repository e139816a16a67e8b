"""Use models without PyTorch: bundles, prediction, long recordings, live streams.

bundle.py            the folder in which a model is shipped, run by ONNX Runtime
answering.py         from model outputs to answers: classes, confidence, scales
predictor.py         one answer per recording, of any length
prefetch.py          decode the next files while the model runs
recording_source.py  what a recording may be given as: path, bytes, open file, samples
texts.py             the text beside a recording
tokenizer.py         tokenizers of Hugging Face
graph_files.py       weight files beside an ONNX graph
arithmetic_check.py  a known answer, computed again on every machine
shipped.py           the model that comes with the package
timeline/            segments and speakers of long recordings, live streams
formats/             timelines as files: ELAN, Praat, captions, RTTM, CSV, HTML, PNG
batch/               many recordings into one resumable file

Requires numpy, soundfile, soxr and onnxruntime. Everything else is an optional extra.
"""
