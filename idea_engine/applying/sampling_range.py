"""Where in the sampling a person comes in, if nobody says otherwise."""

# The first steps lay out the scene, and one photograph teaches its own scene along with the face: a person who comes in a little later is as much
# alike, and more of the prompt is drawn (docs/ablation.md). FastComposer (2305.10431) delays its subjects for the same reason.
STARTS_AT = 0.1
