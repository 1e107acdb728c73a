"""FaceCLIP (arXiv 2504.14202): one face and one prompt, read together, in place of the text encoders. No training per person.

Data flow: photograph → face_tower (who) · prompt → text_tower (what) → fuser (both) → encoder; checkpoint and convert know files.
"""
