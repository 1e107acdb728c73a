"""Every failure the launcher reports, by name. The message of each is the sentence the person at the terminal reads."""


class LauncherError(Exception):
    """Something that the person at the terminal can mend."""


class HostGoneError(LauncherError):
    """The host does not answer any more."""


class HTTPAnswerError(LauncherError):
    """The host answered a request with an error code."""

    def __init__(self, path: str, code: int, body: bytes):
        super().__init__(f"The host answered {path.split('?')[0]} with code {code}: {body[:300].decode(errors='replace')}")
        self.code, self.body = code, body


class WebSocketClosed(LauncherError):
    """The server ended the connection."""


class PromptRejectedError(LauncherError):
    """The host refused the graph before running it: an input is missing, unknown or out of range."""

    def __init__(self, message: str, node_errors: dict):
        super().__init__(message)
        self.node_errors = node_errors


class NodeFailedError(LauncherError):
    """A node raised. `sentence` is the node's own message."""

    def __init__(self, node_id: str, node_type: str, sentence: str, error_type: str = "", traceback: str = ""):
        super().__init__(f"{node_type} (node {node_id}): {sentence}")
        self.node_id, self.node_type, self.sentence = node_id, node_type, sentence
        self.error_type, self.traceback = error_type, traceback


class InterruptedRunError(LauncherError):
    """The run was cancelled."""


class WorkflowError(LauncherError):
    """A workflow file cannot be turned into a graph for this host."""
