"""SLURM's engine against a stand-in: sbatch and its like as shell scripts that run what is sent."""

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

from plasticity_jax.execution import engines
from plasticity_jax.execution.engines import description, slurm, supervising, worker
from plasticity_jax.spec import Spec
from plasticity_jax.storage import workdir
from plasticity_jax.storage.json_files import read_json, unsealed

TASKS = 2

AFTER_GO = f'while [ ! -e "$STATE/go" ]; do sleep 0.05; done; mkdir -p "$1/checkpoints/x/{TASKS}"'

# each element of the array is a process; queue/NUMBER_INDEX is there while it runs
SBATCH = """#!/bin/bash
script="${@: -1}"
last=$(sed -n 's/^#SBATCH --array=0-//p' "$script")
echo $(( last + 1 )) >> "$STATE/asked"
if [ "$last" -ge "$(cat "$STATE/largest")" ]; then
  echo "sbatch: error: Batch job submission failed: Invalid job array specification" >&2; exit 1
fi
if [ $(( $(ls "$STATE/queue" | wc -l) + last )) -ge "$(cat "$STATE/most")" ]; then
  echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1
fi
number=$(( $(ls "$STATE/scripts" | wc -l) + 100 ))
cp "$script" "$STATE/scripts/$number"
realpath "$script" > "$STATE/$number.path"
for index in $(seq 0 "$last"); do
  echo > "$STATE/queue/${number}_$index"
  "$STATE/bin/element" "$number" "$index" > /dev/null 2>&1 &
done
sleep 0.1
echo "$number;cluster"
"""
ELEMENT = """#!/bin/bash
job="$1_$2"
export SLURM_ARRAY_JOB_ID="$1" SLURM_ARRAY_TASK_ID="$2"
bash "$STATE/scripts/$1" &
echo $! > "$STATE/queue/$job"
wait $!
rm "$STATE/queue/$job"
"""
SQUEUE = """#!/bin/bash
[ -e "$STATE/down" ] && exit 1
case "$*" in *--states=all*) cat "$STATE/remembered"; exit;; esac
for job in $(ls "$STATE/queue"); do echo "$job|$(cat "$STATE/${job%_*}.path")"; done
"""
SACCT = '#!/bin/bash\ncat "$STATE/sacct"\n'
SCONTROL = '#!/bin/bash\necho "$@" >> "$STATE/scontrol"\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of a stand-in's state, with its commands on the path."""
    state = tmp_path / "cluster"
    for name in ("bin", "queue", "scripts"):
        (state / name).mkdir(parents=True)
    scripts = {"sbatch": SBATCH, "squeue": SQUEUE, "sacct": SACCT, "scontrol": SCONTROL}
    for name, text in {**scripts, "element": ELEMENT}.items():
        (state / "bin" / name).write_text(text)
        (state / "bin" / name).chmod(0o755)
    (state / "sacct").write_text("")
    (state / "remembered").write_text("")
    for limit in ("largest", "most"):
        (state / limit).write_text("1001")
    monkeypatch.setenv("STATE", str(state))
    monkeypatch.setenv("PATH", f"{state / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "SECONDS", 0.05)
    monkeypatch.setattr(slurm, "LATE", 0.0)
    monkeypatch.setattr(supervising, "PAUSE", 0.02)
    return state


@pytest.fixture
def folders(tmp_path):
    """Three slices in a folder with a space."""
    made = []
    for name in ("aa", "bb", "cc"):
        folder = tmp_path / "my run" / "slices" / name
        folder.mkdir(parents=True)
        content = {"spec": Spec(tasks=TASKS).record(), "lanes": [], "lane_strategy": "map"}
        how = description.How()._asdict()
        (folder / description.FILE).write_text(json.dumps(content | {"lane_width": 1, "how": how}))
        made.append(folder)
    return made


@pytest.fixture
def work(monkeypatch):
    """Lets the process of a slice be a shell script, with its folder in $1; by default one that
    finishes its tasks.
    """

    def use(script=f'mkdir -p "$1/checkpoints/x/{TASKS}"'):
        words = ["bash", "-c", script, "slice", "FOLDER"]
        monkeypatch.setattr(supervising, "command", lambda folder, imports: words)

    use()
    return use


def run(folders, told=None, passed=None, stop=None, workers=0):
    tell = (told if told is not None else []).append
    given = (folders[0].parent, workers, "", (), passed or {}, lambda: None, tell)
    return slurm.run(folders, engines.Options(*given, stop or workdir.Stop()))


def test_every_slice_is_an_element_of_one_array(cluster, folders, work):
    told = []
    assert run(folders, told, {"partition": "gpu", "time": "1:00:00"}) == {}
    assert all(worker.is_done(folder) for folder in folders)
    (script,) = (cluster / "scripts").iterdir()
    lines = script.read_text().splitlines()
    for line in ("partition=gpu", "time=1:00:00", "array=0-2", "requeue", "signal=B:USR1@120"):
        assert f"#SBATCH --{line}" in lines
    assert told == ["3 slices are sent as job 100"]


def test_what_dies_is_sent_again_and_what_fails_is_not(cluster, folders, work):
    """One dies at first, one always, one notes a fault."""
    work(
        f'cd "$1"; echo >> tries; case "$1" in *aa) test $(wc -l < tries) -gt 1 || kill -9 $$;; '
        f"*bb) kill -9 $$;; *cc) echo no data. > {worker.FAULT}; exit 1;; esac; "
        f"mkdir -p checkpoints/x/{TASKS}"
    )
    failed = run(folders)
    assert {folder.name: reason for folder, reason in failed.items()} == {
        "bb": "it died 4 times, the last with code -9",
        "cc": "no data.",
    }
    tries = [len((folder / "tries").read_text().splitlines()) for folder in folders]
    assert tries == [2, 4, 1]


def test_a_job_that_was_cancelled_is_not_sent_again(cluster, folders, work):
    work("kill -9 $$")
    (cluster / "sacct").write_text("100_0|CANCELLED by 1000\n100_1|CANCELLED by 0\n")
    failed = run(folders[:2])
    assert set(failed.values()) == {"its job was cancelled"}
    assert len(list((cluster / "scripts").iterdir())) == 1


def without_accounting(cluster, monkeypatch):
    (cluster / "bin" / "sacct").unlink()
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None if name == "sacct" else name)


@pytest.mark.parametrize("of", ["queue", "accounting"])
def test_without_accounting_the_scheduler_says_what_was_cancelled(
    of, cluster, folders, work, monkeypatch
):
    """Also of a job that never began, and where accounting says of it what was before."""
    work("kill -9 $$")
    (cluster / "remembered").write_text("100_0|CANCELLED\n100_1|TIMEOUT\n100_2|COMPLETING\n")
    if of == "queue":
        without_accounting(cluster, monkeypatch)
    else:
        (cluster / "sacct").write_text("100_0|RUNNING\n100_1|RUNNING\n100_2|CANCELLED by 0\n")
    failed = run(folders)
    again = {"aa": "its job was cancelled", "bb": "it died 4 times, the last with code -9"}
    again["cc"] = again["bb" if of == "queue" else "aa"]
    assert {folder.name: reason for folder, reason in failed.items()} == again


def test_a_job_says_itself_that_it_was_asked_to_end(cluster, folders, work, monkeypatch):
    """Where nobody remembers it: it is not sent again, unless it only died, or had been begun
    again after it was asked.
    """
    without_accounting(cluster, monkeypatch)
    work(
        f'trap "exit {worker.STOPPED}" TERM; case "$1" in *aa) kill -TERM $PPID; sleep 0.3;; '
        f'*bb) kill -9 $$;; *cc) echo 99_0 > "$1/{slurm.ENDED}"; kill -9 $$;; esac'
    )
    failed = run(folders)
    assert {folder.name: reason for folder, reason in failed.items()} == {
        "aa": "its job was cancelled",
        "bb": "it died 4 times, the last with code -9",
        "cc": "it died 4 times, the last with code -9",
    }
    assert (folders[0] / slurm.ENDED).read_text().strip() == "100_0"


def test_accounting_that_is_behind_is_waited_for(cluster, folders, work, monkeypatch):
    """What it says in the end holds: nothing is sent meanwhile."""
    work("kill -9 $$")
    monkeypatch.setattr(slurm, "LATE", 60.0)
    (cluster / "sacct").write_text("100_0|RUNNING\n")
    said = [3]

    def moved():
        said[0] -= not any((cluster / "queue").iterdir())
        if said[0] < 0:
            (cluster / "sacct").write_text("100_0|CANCELLED by 1000\n")

    given = (folders[0].parent, 0, "", (), {}, moved, lambda line: None, workdir.Stop())
    failed = slurm.run(folders[:1], engines.Options(*given))
    assert list(failed.values()) == ["its job was cancelled"]
    assert asked(cluster) == [1]


def test_the_same_command_finds_jobs_that_are_queued(cluster, folders, work):
    """A run is stopped, its jobs go on, and the next command waits for them and sends nothing."""
    work(AFTER_GO)
    stop, told = workdir.Stop(), []
    tell_and_stop = [lambda: setattr(stop, "requested", True)]
    given = (folders[0].parent, 0, "", (), {}, lambda: tell_and_stop[0](), told.append, stop)
    assert slurm.run(folders, engines.Options(*given)) == {}
    assert "3 slices stay queued or running" in told[-1]
    assert told[-1].endswith("scancel 100 takes them back")
    (cluster / "down").touch()
    with pytest.raises(workdir.WorkdirError, match="squeue fails"):
        run(folders)
    (cluster / "down").unlink()
    found = []

    def tell(line):
        found.append(line)
        (cluster / "go").touch()

    given = (folders[0].parent, 0, "", (), {}, lambda: None, tell, workdir.Stop())
    assert slurm.run(folders, engines.Options(*given)) == {}
    assert found == ["3 slices are queued or running already: they are waited for"]
    assert len(list((cluster / "scripts").iterdir())) == 1
    assert all(worker.is_done(folder) for folder in folders)


def test_jobs_that_were_sent_and_not_noted_are_found_by_their_script(cluster, folders, work):
    """The command was killed between sbatch and its note; other runs' jobs are left alone."""
    work(AFTER_GO)
    stop = workdir.Stop()
    given = (folders[0].parent, 0, "", (), {}, lambda: setattr(stop, "requested", True))
    slurm.run(folders[:2], engines.Options(*given, lambda line: None, stop))
    noted = folders[0].parent / slurm.JOBS
    assert unsealed(read_json(noted)) == {"aa": "100_0", "bb": "100_1"}
    noted.unlink()
    (cluster / "queue" / "7_0").touch()
    (cluster / "7.path").write_text("/elsewhere/aa.sbatch\n")
    told = []

    def tell(line):
        told.append(line)
        (cluster / "go").touch()

    given = (folders[0].parent, 0, "", (), {}, lambda: None, tell, workdir.Stop())
    assert slurm.run(folders, engines.Options(*given)) == {}
    assert told[0] == "2 slices are queued or running already: they are waited for"
    assert told[1] == "1 slices are sent as job 101"
    assert len(list((cluster / "scripts").iterdir())) == 2


class Gate(list):
    """Lines that were told, of which one with this beginning lets jobs that wait go on."""

    def __init__(self, cluster, beginning):
        self.cluster, self.beginning = cluster, beginning

    def append(self, line):
        super().append(line)
        if line.startswith(self.beginning):
            (self.cluster / "go").touch()


def asked(cluster):
    return [int(line) for line in (cluster / "asked").read_text().split()]


def test_a_queue_that_takes_no_more_is_waited_for(cluster, folders, work):
    """Its limit counts all jobs of the user: one is sent whenever another one ends."""
    (cluster / "most").write_text("2")
    work(AFTER_GO)
    told = Gate(cluster, "sbatch refuses ")
    assert run(folders, told) == {}
    assert all(worker.is_done(folder) for folder in folders)
    refused = [line for line in told if line.startswith("sbatch refuses ")]
    assert len(refused) == 1
    assert refused[0].endswith(
        "(sbatch: error: QOSMaxSubmitJobPerUserLimit): the other slices wait until jobs of this "
        "run end"
    )
    assert asked(cluster)[:4] == [3, 1, 2, 1]
    noted = json.loads((folders[0].parent / slurm.JOBS).read_text())
    assert len({noted[folder.name] for folder in folders}) == 3


def test_an_array_that_is_too_large_is_sent_in_parts(cluster, folders, work):
    (cluster / "largest").write_text("1")
    assert run(folders) == {}
    assert asked(cluster) == [3, 1, 2, 1, 1]
    assert all(worker.is_done(folder) for folder in folders)


def test_a_queue_that_takes_nothing_is_one_sentence(cluster, folders, work):
    (cluster / "most").write_text("0")
    with pytest.raises(workdir.WorkdirError, match=r"^sbatch refuses .*QOSMaxSubmitJobPerUserLim"):
        run(folders)


def test_a_job_that_was_taken_without_an_answer_is_not_sent_again(cluster, folders, work):
    """As by a scheduler so busy that sbatch gives up."""
    work(AFTER_GO)
    sbatch = cluster / "bin" / "sbatch"
    sbatch.write_text(sbatch.read_text().replace('echo "$number;cluster"', "exit 1"))
    assert run(folders, Gate(cluster, "")) == {}
    assert asked(cluster) == [3]
    assert all(worker.is_done(folder) for folder in folders)


@pytest.mark.parametrize(("number", "again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_job_at_its_time_limit_asks_for_itself_again(number, again, cluster, folders, work):
    """As its slice has saved all it had; one that is ended does not."""
    work(f'trap "exit {worker.STOPPED}" USR1 TERM; touch "$1/up"; while true; do sleep 0.05; done')
    given = (folders[0].parent, 0, "", (), {}, lambda: None, lambda line: None, workdir.Stop())
    script = slurm.text(folders[:1], engines.Options(*given))
    env = {**os.environ, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    process = subprocess.Popen(["bash", "-c", script], env=env)
    while not (folders[0] / "up").exists():
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=30) == worker.STOPPED
    asked = cluster / "scontrol"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 7_0\n" if again else "")


def test_a_scheduler_that_does_not_answer_is_asked_again(cluster, monkeypatch):
    queue = slurm._Queue()
    (cluster / "down").touch()
    assert queue.gone(["100_0"]) == []
    (cluster / "down").unlink()
    queue.asked = 0.0
    assert queue.gone(["100_0"]) == ["100_0"]


@pytest.mark.parametrize("name", ["array", "wrap", "output", "Partition", "a b", "x\nwrap"])
def test_options_that_would_undo_the_script_are_refused(name, cluster):
    with pytest.raises(ValueError, match="allowed are sbatch's long options"):
        slurm.check({name: "1"})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("clusters", "as jobs are sent to the cluster of this machine"),
        ("wait", "as this command waits for jobs itself"),
        ("wai", "as this command waits for jobs itself"),
    ],
)
def test_jobs_elsewhere_and_a_second_wait_are_refused(name, why, cluster, monkeypatch):
    """Also by the beginning of a name, which sbatch takes for it, and by sbatch's variables."""
    with pytest.raises(ValueError, match=rf"^slurm\.{name} is given, {why}: allowed are sbatch's"):
        slurm.check({name: ""})
    slurm.check({"wait-all-nodes": "1", "partition": "a,b", "cluster-constraint": "x"})
    if name != "wai":
        monkeypatch.setenv(f"SBATCH_{name.upper()}", "x")
        with pytest.raises(ValueError, match=rf"^SBATCH_{name.upper()} is set: .*, {why}\.$"):
            slurm.check({})


def test_without_slurm_it_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(workdir.WorkdirError, match="there is no sbatch on this machine"):
        slurm.check({})


def test_a_list_of_jobs_that_cannot_be_read_sends_nothing(cluster, folders):
    """Each digit of it changed; cut short; one from before there was a checksum is read."""
    noted = pathlib.Path(folders[0].parent, slurm.JOBS)
    slurm._note(noted.parent, {"aa": "100_0", "bb": "100_1"})
    whole = noted.read_bytes()
    # (not of the checksum's name, without which the jobs are right)
    name = range(whole.index(b"sha256"), whole.index(b"sha256") + 6)
    digits = [p for p, byte in enumerate(whole) if chr(byte).isdecimal() and p not in name]
    damaged = [whole[:p] + bytes([whole[p] ^ 1]) + whole[p + 1 :] for p in digits]
    for content in (b"[", whole[:-1], *damaged):
        noted.write_bytes(content)
        with pytest.raises(workdir.WorkdirError, match=r"^.*jobs\.json cannot be read"):
            run(folders)
    assert not list((cluster / "scripts").iterdir())
    noted.write_text('{"aa": "100_0"}')
    assert slurm._known(noted.parent) == {"aa": "100_0"}
