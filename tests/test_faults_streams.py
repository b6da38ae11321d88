"""Standard streams that are closed, full, without a reader, or of a narrow encoding: no run is lost to them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dreamfusion import cli
from dreamfusion.interrupts import Ended, ended_by_signals, stopped_by_signals
from dreamfusion.streams import Forgiving, forgiving_streams
from tests.fakes import GrayBallPrior, options
from tests.faults import CHAIR, FILM, environment, forked, program, use


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def closed() -> Any:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stream.close()
    return stream


def without_reader() -> Any:
    read, write = os.pipe()
    os.close(read)
    return open(write, "w", encoding="utf-8", buffering=1)


def full() -> Any:
    return open("/dev/full", "w", encoding="utf-8", buffering=1)


def narrow(encoding: str) -> Any:
    return io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")


STREAMS = {
    "none": lambda: None,
    "closed": closed,
    "without a reader": without_reader,
    "full": full,
    "ascii": lambda: narrow("ascii"),
    "cp1252": lambda: narrow("cp1252"),
    "latin-1": lambda: narrow("latin-1"),
    "strict utf-8": lambda: narrow("utf-8"),
    "utf-16": lambda: narrow("utf-16"),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_run_is_finished_whatever_becomes_of_its_output(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(GrayBallPrior(), monkeypatch)
    stream = STREAMS[kind]()
    monkeypatch.setattr(sys, name, stream)
    assert cli.main([*CHAIR, "--out", "r\N{HORIZONTAL ELLIPSIS}\udcff"]) == 0
    assert getattr(sys, name) is stream, "what was there before is put back"
    made = {path.name for path in Path("r\N{HORIZONTAL ELLIPSIS}\udcff").iterdir()}
    assert {"asset.glb", "preview.png", "run.yaml", "metrics.jsonl", "cost.json", "checkpoint"} == made
    if stream is not None:
        stream.close()  # what is left in its buffer is not written, and raises nothing


@pytest.mark.parametrize("kind", ["ascii", "cp1252", "latin-1", "strict utf-8", "utf-16"])
@pytest.mark.parametrize("command", [[], *([*name.split(), "--help"] for name in cli.COMMANDS), ["presets"]])
def test_text_is_shown_in_any_encoding(kind: str, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = STREAMS[kind]()
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(command) == 0
    said = stream.buffer.getvalue().decode(stream.encoding)
    assert said.startswith("usage: dreamfusion ") or "balanced" in said
    assert "\\u" not in said, "our own characters have plain forms"


def test_what_an_encoding_lacks_is_written_plainly() -> None:
    inner = narrow("ascii")
    stream = Forgiving(inner)
    stream.write("A,B,… 3 × 4 – 90° \N{GREEK SMALL LETTER ALPHA} \udcff")
    stream.flush()
    assert inner.buffer.getvalue() == rb"A,B,... 3 x 4 - 90 deg \u03b1 \udcff" and stream.failure is None


def test_a_reader_that_comes_back_gets_the_rest(tmp_path: Path) -> None:
    """A log on a disk that was full for a while goes on."""

    class Sometimes(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    inner = Sometimes()
    stream = Forgiving(inner)
    stream.write("lost")
    inner.full = False
    stream.write("kept")
    assert inner.getvalue() == "kept" and stream.lost == "No space left on device"


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("full", 2, "dreamfusion: error: cannot write to standard output: No space left on device\n"),
        ("without a reader", 0, ""),
        ("closed", 0, ""),
        ("none", 0, ""),
    ],
)
@pytest.mark.parametrize("argv", [["presets"], ["presets", "fast"], ["--help"], ["--version"], ["presets", "--json"]])
def test_output_that_was_all_there_is(
    kind: str,
    code: int,
    said: str,
    argv: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", stream := STREAMS[kind]())
    assert cli.main(argv) == code
    assert capsys.readouterr().err == said
    if stream is not None:
        stream.close()


def test_a_lost_report_of_a_finished_run_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(GrayBallPrior(), monkeypatch)
    with full() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main([*CHAIR, "--out", "r"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "dreamfusion: warning: cannot write to standard output: No space left on device"


@pytest.mark.parametrize("kind", ["none", "closed", "without a reader", "full"])
def test_a_mistake_keeps_its_exit_code(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := STREAMS[kind]())
    assert cli.main(["generat"]) == 2
    if stream is not None:
        stream.close()


def test_a_warning_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(GrayBallPrior):
        def unknown_words(self, prompt: str) -> list[Any]:
            from dreamfusion.priors.prior import Unknown

            return [Unknown("z\N{LATIN SMALL LETTER O WITH DIAERESIS}rgle", "stool", 0.25)]

    use(Strange(), monkeypatch)
    monkeypatch.setattr(sys, "stderr", stream := narrow("ascii"))
    assert cli.main([*CHAIR, "--out", "r"]) == 0
    assert rb"warning: the bundled prior was never taught 'z\xf6rgle'" in stream.buffer.getvalue()


CLOSED = ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("how", CLOSED)
def test_closed_descriptors_are_not_given_to_files(how: str) -> None:
    """A file that gets number 1 or 2 would receive whatever a library prints."""
    look = "import os; from dreamfusion.streams import forgiving_streams\n"
    look += "with forgiving_streams(): open('found', 'w').write(str(os.open('/', os.O_RDONLY) > 2))"
    script = Path("look.py")
    script.write_text(look)
    done = subprocess.run(f"'{sys.executable}' look.py {how}", shell=True, env=environment(), check=False)
    assert done.returncode == 0 and Path("found").read_text() == "True"


def test_a_run_with_all_descriptors_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    use(GrayBallPrior(), monkeypatch)

    def run() -> None:
        for number in (0, 1, 2):
            os.close(number)
        sys.stdin = sys.stdout = sys.stderr = None  # as Python begins then
        os._exit(cli.main([*CHAIR, "--out", "r", *options(FILM)]))

    assert forked(run) == 0
    assert {"asset.glb", "turntable.mp4", "turntable.gif"} <= {path.name for path in Path("r").iterdir()}


def test_a_reader_of_both_streams_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``2>&1 | head -1``."""
    use(GrayBallPrior(), monkeypatch)
    read, write = os.pipe()
    lines: list[str] = []

    def head() -> None:
        with open(read, encoding="utf-8", buffering=1) as stream:
            lines.append(stream.readline())

    def run() -> None:
        os.close(read)
        for number in (1, 2):
            os.dup2(write, number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
        os._exit(cli.main([*CHAIR, "--out", "r"]))

    reader = threading.Thread(target=head)
    reader.start()
    assert forked(run) == 0
    os.close(write)
    reader.join()
    assert lines == ["'a red chair', preset balanced, seed 0, in r\n"] and Path("r/asset.glb").is_file()


@pytest.mark.parametrize(("redirect", "code"), [("| true", 0), ("2>&1 | true", 0), (">/dev/full", 2), (">&-", 0)])
def test_processes_say_nothing_when_they_end(redirect: str, code: int) -> None:
    """Python flushes its streams once more when it ends, and would complain there."""
    line = f"{{ '{sys.executable}' -m dreamfusion presets dreamfusion; echo $? >code; }} {redirect}"
    done = subprocess.run(line, shell=True, env=environment(), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert Path("code").read_text() == f"{code}\n" and len(done.stderr.splitlines()) == (code == 2)


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii:strict"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_narrow_locales(settings: dict[str, str]) -> None:
    done = program(["-m", "dreamfusion", "--help"], env=environment(PYTHONCOERCECLOCALE="0", **settings))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: dreamfusion COMMAND ...")


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("argv", [["presets"], ["doctor"], ["prior", "info"]])
def test_commands_that_are_stopped(
    number: signal.Signals, argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)]
    command = cli.COMMANDS[" ".join(argv)]
    stopped = cli.Command(command.help, command.options, lambda _: send(number) or 0)
    monkeypatch.setitem(cli.COMMANDS, " ".join(argv), stopped)
    try:
        assert cli.main(argv) == 128 + number
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)] == [signal.SIG_DFL] * 2
    finally:
        for n, handler in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(n, handler)
    assert capsys.readouterr().err.startswith("dreamfusion: stopped")


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            send(signal.SIGHUP)
        with stopped_by_signals() as request:
            send(signal.SIGHUP)
            assert not request.event.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_hanging_up_is_an_end_like_sigterm() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(Ended) as caught, ended_by_signals():
            send(signal.SIGHUP)
        assert caught.value.signal == signal.SIGHUP
        with stopped_by_signals() as request:
            send(signal.SIGHUP)
        assert request.event.is_set() and request.signal == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_line_works_in_a_thread() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(["presets", "fast", "--json"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_streams_can_be_nested() -> None:
    outer = sys.stdout
    with forgiving_streams() as (first, _):
        with forgiving_streams() as (second, _):
            assert second.stream is first
        assert sys.stdout is first
    assert sys.stdout is outer
