"""The nodes, by the ids that workflows store. An id, once published, never changes."""
from .apply import ApplyIDAdapter, ApplyIDAdapterAdvanced
from .attention import AttentionMap
from .check import CheckModel
from .demo import LoadDemoModel
from .doctor import ReferenceDoctor
from .enhance import IDEnhancer
from .evaluate import IdentityScore
from .face import FaceEmbed, LoadFaceModel
from .faceclip import FaceCLIPEncode, FaceCLIPLoader
from .host.live import register_routes
from .host.notices import register_notices
from .host.paths import register_folders
from .identity import LoadIdentity, SaveIdentity
from .merge import MergeIdentities
from .refit import RefitIdentity
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
    "IDEA_FaceCLIPLoader": FaceCLIPLoader,
    "IDEA_FaceCLIPEncode": FaceCLIPEncode,
    "IDEA_LoadDemoModel": LoadDemoModel,
    "IDEA_ReferenceDoctor": ReferenceDoctor,
    "IDEA_MergeIdentities": MergeIdentities,
    "IDEA_ApplyIDAdapterAdvanced": ApplyIDAdapterAdvanced,
    "IDEA_IdentityScore": IdentityScore,
    "IDEA_RefitIdentity": RefitIdentity,
    "IDEA_CheckModel": CheckModel,
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
    "IDEA_FaceCLIPLoader": "Load FaceCLIP",
    "IDEA_FaceCLIPEncode": "FaceCLIP Encode",
    "IDEA_ReferenceDoctor": "Reference Doctor",
    "IDEA_MergeIdentities": "Merge Identities",
    "IDEA_ApplyIDAdapterAdvanced": "Apply ID Adapter (Advanced)",
    "IDEA_IdentityScore": "Identity Score",
    "IDEA_RefitIdentity": "Refit Identity",
    "IDEA_CheckModel": "Check Model",
}

register_folders()
register_routes()
register_notices()
