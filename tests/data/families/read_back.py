"""SAELens and sparsify load what we wrote with their own code, and encode it to the goldens.

    DIR=$(mktemp -d); TILLER_READ_BACK=$DIR cargo test --test families open_again && python read_back.py $DIR
"""
import os, pathlib, sys, types
import torch
from safetensors.torch import load_file
from sae_lens import SAE

HERE = pathlib.Path(__file__).parent
written = pathlib.Path(sys.argv[1])


def check(name, golden, codes, reconstruction):
    worst = 0.0
    for found, expected in [(codes, golden["codes"]), (reconstruction, golden["reconstruction"])]:
        scale = expected.abs().amax(-1, keepdim=True).clamp(min=1e-30)
        worst = max(worst, float(((found - expected).abs() / scale).max()))
    same = bool(((codes > 0) == (golden["codes"] > 0)).all())
    print(f"{name:44} error {worst:.1e}  same active set {same}")
    assert worst <= 1e-4 and same


for family, goldens in [("saelens", HERE / "golden"), ("saelens_own", HERE.parent / "saelens")]:
    for path in sorted((written / family).iterdir()):
        own = goldens / path.name / "golden.safetensors"
        golden = load_file(own if own.is_file() else goldens / f"{path.name}.safetensors")
        sae = SAE.load_from_disk(str(path)).float()
        with torch.no_grad():
            codes = sae.encode(golden["x"])
            check(f"SAELens {path.name} ({type(sae).__name__})", golden, codes, sae(golden["x"]))

package = types.ModuleType("sparsify")
package.__path__ = [str(pathlib.Path(p) / "sparsify") for p in sys.path if (pathlib.Path(p) / "sparsify").is_dir()]
sys.modules["sparsify"] = package
os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
from sparsify.sparse_coder import SparseCoder
for path in sorted((written / "sparsify").iterdir()):
    golden = load_file(HERE / "golden" / f"{path.name}.safetensors")
    coder = SparseCoder.load_from_disk(path)
    with torch.no_grad():
        out = coder.forward(golden["x"])
        codes = torch.zeros_like(golden["codes"]).scatter_(1, out.latent_indices, out.latent_acts)
    check(f"sparsify {path.name}", golden, codes, out.sae_out)
