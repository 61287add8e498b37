"""Panels that group the commands in `--help`, and the examples at the end of each command's help."""

# In the order in which a user needs them.
PREPARE = "Prepare"
RUN = "Run"
LOOK = "Look"
DEPLOY = "Deploy"
RETRAIN = "Retrain"
MAINTAIN = "Maintain"


def example(*lines: str) -> str:
    """Return an epilog with shell commands as Markdown, which suits both the terminal and the documentation."""
    title = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join([title, "", "```shell", *lines, "```"])
