"""OpenVINO GenAI as a candidate of `cargo xtask bench`.

The arguments are a GGUF file in f16, a folder for what is made of it, and a form: `int4` or `int8`, for which OpenVINO
chooses the precision of activations, or `int4-f32` or `int8-f32`, where they are 32-bit numbers. The environment's
`INFERENCE_NUM_THREADS` says on how many threads. The lines on stdin and stdout are those of the peer `candle`; every
request begins with an empty cache, and no token ends a text.
"""

import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nncf
import numpy as np
import openvino
import openvino_genai

DEVICE = "CPU"
MODEL = "openvino_model.xml"

# As a model of a GGUF file asks for; u8, the default of others, is slower at a depth of 2048.
CACHE = openvino.Type.f16

# Group size of int4 weights, as of the other candidates' 4 bits.
GROUP = 64

# How NNCF compresses: embedding and head too, as the other candidates have them. int8 has a scale for each row.
COMPRESSIONS = {
    "int4": {"mode": nncf.CompressWeightsMode.INT4_SYM, "group_size": GROUP, "ratio": 1.0, "all_layers": True},
    "int8": {"mode": nncf.CompressWeightsMode.INT8_ASYM},
}
LAYOUTS = {
    "int4": f"symmetric in groups of {GROUP}",
    "int8": "asymmetric with a scale for each row",
}


def main():
    # What libraries print is no line of the protocol.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    gguf, cache, form = sys.argv[1:4]
    weights, _, hint = form.partition("-")
    if weights not in COMPRESSIONS or hint not in ("", "f32"):
        forms = ", ".join(f"openvino:{w}{h}" for w in COMPRESSIONS for h in ("", "-f32"))
        print(json.dumps({"error": f"no form `{form}`; there are {forms}"}), file=out, flush=True)
        return
    folder = Path(cache) / weights
    if not folder.is_dir():
        convert(Path(gguf), folder, weights)
    pipeline, loaded = load(folder, form, weights, hint)
    forget_peak()
    print(json.dumps(loaded), file=out, flush=True)
    for line in sys.stdin:
        try:
            reply = answer(pipeline, json.loads(line))
        except Exception as error:  # The bench tells which, and ends.
            reply = {"error": str(error)}
        print(json.dumps(reply), file=out, flush=True)


def convert(gguf, folder, weights):
    """Compresses the weights of the file into `folder`, which is there once all of it is."""
    print(f"converting {gguf.name} to {weights} for OpenVINO", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        work = Path(work)
        # The pipeline writes what it made of a file beside it.
        os.link(gguf, work / gguf.name)
        openvino_genai.LLMPipeline(work / gguf.name, DEVICE, enable_save_ov_model=True)
        made = work / "made"
        made.mkdir()
        model = openvino.Core().read_model(work / MODEL)
        openvino.save_model(nncf.compress_weights(model, **COMPRESSIONS[weights]), made / MODEL)
        for file in work.glob("openvino_*tokenizer.*"):
            shutil.move(file, made)
        made.rename(folder)


def load(folder, form, weights, hint):
    """The pipeline, and what the bench is told of it."""
    core = openvino.Core()
    properties = {"KV_CACHE_PRECISION": CACHE}
    threads = os.environ.get("INFERENCE_NUM_THREADS")
    if threads:
        properties["INFERENCE_NUM_THREADS"] = int(threads)
    if hint:
        properties["INFERENCE_PRECISION_HINT"] = hint
    pipeline = openvino_genai.LLMPipeline(folder, DEVICE, **properties)
    activations = hint or core.get_property(DEVICE, "INFERENCE_PRECISION_HINT").get_type_name()
    caches = [v.get_info().data_shape for v in core.read_model(folder / MODEL).get_variables()]
    # A cache is [batch, heads, tokens, head_dim]; a beam's index is a variable of another shape.
    numbers = sum(c[1].get_length() * c[3].get_length() for c in caches if len(c) == 4)
    return pipeline, {
        "engine": "OpenVINO GenAI " + importlib.metadata.version("openvino-genai"),
        "weights": form,
        "note": f"{weights} {LAYOUTS[weights]}; activations {activations}, cache {CACHE.get_type_name()}",
        "weight_bytes": (folder / MODEL).with_suffix(".bin").stat().st_size,
        "cache_bytes_per_token": numbers * CACHE.size,
    }


def answer(pipeline, request):
    """The seconds of one request: until the first token, and of the rest."""
    ids = np.array([request["prompt"]], dtype=np.int64)
    inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
    tokens = request["generate"] + 1
    result = pipeline.generate(inputs, max_new_tokens=tokens, ignore_eos=True, do_sample=False)
    metrics = result.perf_metrics
    if metrics.get_num_generated_tokens() != tokens:
        raise RuntimeError(f"{metrics.get_num_generated_tokens()} tokens instead of {tokens}")
    first = metrics.get_ttft().mean
    return {
        "prefill_seconds": first / 1e3,
        "decode_seconds": (metrics.get_generate_duration().mean - first) / 1e3,
        "peak_memory": peak(),
    }


def forget_peak():
    """Makes the system count the process's peak from here on, so that it is not that of loading."""
    # https://docs.kernel.org/filesystems/proc.html: 5 resets the peak. A system without the file reports none at all.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak():
    """Most bytes of memory that the process held; `None` where the system does not tell."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


if __name__ == "__main__":
    main()
