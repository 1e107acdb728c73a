"""The ID-Enhancer, learned from many people: photographs of a face become an identity at once, and training only refines it."""
