"""``.. clihelp:: extract``: what ``dtwpt extract --help`` prints, asked at build time."""

from click.testing import CliRunner
from docutils import nodes
from docutils.parsers.rst import Directive

from dtwpt.cli import cli


class CliHelp(Directive):
    optional_arguments = 1

    def run(self):
        arguments = [*self.arguments, "--help"]
        result = CliRunner().invoke(cli, arguments, prog_name="dtwpt", terminal_width=86)
        if result.exit_code:
            raise self.error(f"dtwpt {' '.join(arguments)}: {result.output}")
        text = f"$ dtwpt {' '.join(arguments)}\n{result.output.rstrip()}"
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    app.add_directive("clihelp", CliHelp)
    return {"parallel_read_safe": True}
