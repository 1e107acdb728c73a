"""Words: the trigger of a person in a prompt, and CLIP's tokens."""
