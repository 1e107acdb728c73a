"""The nodes, by the ids that workflows store. An id, once published, never changes."""
from .apply import ApplyIDAdapter
from .attention import AttentionMap
from .demo import LoadDemoModel
from .enhance import IDEnhancer
from .face import FaceEmbed, LoadFaceModel
from .host.paths import register_folders
from .identity import LoadIdentity, SaveIdentity
from .train import TrainIDEA

NODE_CLASS_MAPPINGS = {
    "IDEA_LoadFaceModel": LoadFaceModel,
    "IDEA_FaceEmbed": FaceEmbed,
    "IDEA_IDEnhancer": IDEnhancer,
    "IDEA_TrainIDEA": TrainIDEA,
    "IDEA_ApplyIDAdapter": ApplyIDAdapter,
    "IDEA_SaveIdentity": SaveIdentity,
    "IDEA_LoadIdentity": LoadIdentity,
    "IDEA_AttentionMap": AttentionMap,
    "IDEA_LoadDemoModel": LoadDemoModel,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "IDEA_LoadFaceModel": "Load Face Model",
    "IDEA_FaceEmbed": "Face Embed",
    "IDEA_IDEnhancer": "ID Enhancer",
    "IDEA_TrainIDEA": "Train Identity (ID-EA)",
    "IDEA_ApplyIDAdapter": "Apply ID Adapter",
    "IDEA_SaveIdentity": "Save Identity",
    "IDEA_LoadIdentity": "Load Identity",
    "IDEA_AttentionMap": "Attention Map",
    "IDEA_LoadDemoModel": "Load Demo Model (Portrait World)",
}

register_folders()
