"""What a running node can say, and what it knows of the run it is in."""


def speak(probe):
    """arguments: node, text → the prompt that runs as `running` tells it; the text is said twice, which is once."""
    notices = probe.module("nodes.host.notices")
    now = notices.running()
    for _ in range(2):
        notices.notify(probe.arguments["node"], probe.arguments["text"])
    return {
        "node": now.node_id,
        "prompt": now.prompt_id,
        "graph": {id: node["class_type"] for id, node in now.graph.items()},
    }


def about(probe):
    """arguments: prompts → the sentences about each."""
    check, notices = probe.module("nodes.graph_check"), probe.module("nodes.host.notices")
    return [
        [notice.text for notice in check.check_graph(prompt, notices.output_types(prompt), notices.saved_trigger)]
        for prompt in probe.arguments["prompts"]
    ]


def before_any_prompt(probe):
    """→ whether an empty queue is answered with None, and a queue that fails too."""
    notices = probe.module("nodes.host.notices")
    server, answers = notices.host_server(), []
    queue = server.prompt_queue
    for other in (None, object(), type("Broken", (), {"get_current_queue": lambda self: 1 / 0})()):
        try:
            server.prompt_queue = other
            answers.append(notices.running() is None)
        finally:
            server.prompt_queue = queue
    return answers
