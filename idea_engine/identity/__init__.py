"""An identity: the nouns, its file, foreign files, merging, fading, and the anchor of the names it starts from."""
