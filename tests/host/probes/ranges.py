"""What the text side leaves for the UNet side outside an identity's range."""


def lengths(probe):
    """a: CONDITIONING of a bounded identity, b: the same texts in the untouched host → lengths, and how far apart they are outside the range."""
    prompt = list(probe.module("nodes.host.mentions").MENTIONS._bounded.values())[-1]
    (plain,) = prompt.without.values()
    host = probe.b[0][0][0]
    return {"whole": probe.a[0][0].shape[1], "plain": len(plain), "difference": float((plain - host).abs().max()) if plain.shape == host.shape else -1.0}
