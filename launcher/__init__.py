"""Everything `quickstart.py` does, in modules of one noun each.

requirements → environment → releases → hosts → base_directory → server (with guard) → client (with websocket, workflow) → portrait.
Standard library only, so that it runs before anything is installed. The exceptions are `stand_ins.checkpoint` and
`stand_ins.face_pack`, which make the demo models and run inside the environment.
"""
