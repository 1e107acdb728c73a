import torch
def look(probe):
    c, bare = probe.a[0][0], probe.b[0][0]
    carried = probe.module("nodes.host.carried")
    out = {"type": type(c).__name__, "same_class": isinstance(c, carried.CarriedCondition)}
    if isinstance(c, carried.CarriedCondition):
        out["layers"] = [str(k)[:60] for k in c.layers]
        w = [k for k in c.layers if isinstance(k, carried.Without)]
        out["eq"] = [float((c.layers[k]-carried.plain(bare)).abs().max()) for k in w]
    return out
