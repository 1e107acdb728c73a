"""Everything `quickstart.py` does, in modules of one noun each.

requirements → environment → releases → hosts → base_directory → server (with guard) → client (with websocket, workflow) → portrait.
Standard library only, so that it runs before anything is installed. The exceptions are `demo_checkpoint` and
`demo_face_pack`, which make the demo models and run inside the environment.
"""
