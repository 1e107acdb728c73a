"""ID-EA's mathematics and files on plain torch: never imports ComfyUI, and nothing heavy at import."""
