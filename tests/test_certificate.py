"""The certificate: exact where the radius is known, never above an attack, the same by one seed."""

import csv
import re
import runpy
from itertools import islice, product

import numpy as np
import pytest
from processes import command, run
from scipy.stats import binomtest, norm
from test_robustness import save_quick_model

from glr.errors import GLRError
from glr.network import Network, identity, new_network, sigmoid, threshold
from glr.robustness import certificate
from glr.robustness.certificate import (
    Certified,
    Smoothing,
    certificates,
    radius,
    share_at_least,
    votes,
    write_certificates,
)
from glr.scripts.constants import script_constants
from glr.storage.models import save_model
from glr.study.runs import tasks

MANY = Smoothing(sigma=1.5, passes=40_000, alpha=0.001)


def network_of(layers, activation):
    """The network of these W and b."""
    sizes = [len(layers[0][0]), *(np.size(b) for _, b in layers)]
    parameters = [np.ravel(part) for layer in layers for part in layer]
    return Network(np.concatenate(parameters).astype(np.float32), sizes, activation)


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


# Networks, and how far a sample is from where their vote turns: for each the bound is attained.
SLOPE = np.array([3.0, -4.0])
LINEAR = {
    # Noise on the output logits, which differ by 2x·SLOPE: their noise by √2·σ.
    "no hidden layer": network_of([(np.c_[SLOPE, -SLOPE], [0, 0])], identity),
    # x + noise, times 5, to a linear classifier: Cohen et al.'s smoothing of the inputs themselves.
    "identity": network_of([(5 * np.eye(2), [0, 0]), (np.c_[SLOPE, -SLOPE], [0, 0])], identity),
    "one threshold": network_of([(SLOPE[:, None], [0]), ([[2, 0]], [0, 1])], threshold),
}


@pytest.mark.parametrize("network", LINEAR.values(), ids=LINEAR)
def test_the_radius_of_a_linear_network_is_the_distance_to_where_the_vote_turns(network):
    x = np.array([[0.3, 0.1], [-0.2, 0.1], [0.1, -0.1], [0.5, 0.375 + 1e-3]], np.float32)
    scale = MANY.sigma / np.linalg.norm(network.layers[0].W, 2)
    found = list(certificates(network, x, MANY, generator()))
    for (voted, r), projection in zip(found, x @ SLOPE, strict=True):
        distance = abs(projection) / 5
        assert r < distance, "the bound is a lower one"
        if distance > 0.05 * scale:
            assert voted == (0 if projection > 0 else 1)
        share = norm.cdf(distance / scale)  # exactly that of the passes that vote so
        slack = 6 * np.sqrt(share * (1 - share) / MANY.passes) / norm.pdf(distance / scale)
        assert distance - r < scale * slack


def test_the_radius_is_cohen_et_al_s_where_noise_on_the_logits_is_noise_on_the_inputs():
    for sigma, share in ((0.25, 0.6), (1.0, 0.99), (2.0, 0.999999)):
        assert radius(share, sigma) == pytest.approx(sigma * norm.ppf(share), rel=2e-6)
        assert radius(share, sigma) < sigma * norm.ppf(share)
    assert [radius(share, 1.0) for share in (0.0, 0.3, 0.5)] == [0, 0, 0]


def test_the_bound_of_a_share_is_clopper_and_pearson_s():
    for n, alpha in product((1, 100, 10_000), (0.5, 0.05, 0.001)):
        for k in {0, 1, n // 2, n - 1, n}:
            own = share_at_least(k, Smoothing(1.0, n, alpha))
            exact = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
            assert own == pytest.approx(exact, rel=1e-9, abs=1e-12), (k, n, alpha)


def test_a_radius_is_too_large_no_more_often_than_alpha_says():
    """Of the smallest samples, where the bound is not rough; by the exact distance, 0.1."""
    x = np.tile(np.float32([0.1, -0.05]), (2000, 1))
    smoothing = Smoothing(1.0, 50, 0.1)
    found = certificates(LINEAR["one threshold"], x, smoothing, generator())
    too_large = np.mean([r > 0.1 for _, r in found])
    assert 0.02 < too_large < 0.1 + 3 * np.sqrt(0.1 * 0.9 / len(x))


def shares_by_enumeration(network, x, sigma):
    """The probability of each class (N, classes), over all outputs of the threshold neurons."""
    (W, b), (V, c) = network.layers
    bits = np.array([*product((0, 1), repeat=b.size)], np.float32)
    on = norm.cdf((x @ W + b) / sigma)[:, None, :]
    of_bits = np.where(bits == 1, on, 1 - on).prod(axis=2)
    return of_bits @ np.eye(c.size)[(bits @ V + c).argmax(axis=1)]


def test_no_radius_is_larger_than_the_way_to_an_adversarial_example():
    """Found without error: the vote of five threshold neurons is enumerated along 60 directions."""
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    directions = np.c_[np.cos(turns), np.sin(turns)]
    lengths = np.linspace(0, 2, 101)
    smoothing = Smoothing(0.5, 2000, 0.001)
    pairs = []
    for seed in range(4):
        network = new_network([2, 5, 3], threshold, generator(seed), scale=2)
        x = generator(100 + seed).random((6, 2), dtype=np.float32)
        found = certificates(network, x, smoothing, generator(seed))
        for sample, (voted, r) in zip(x, found, strict=True):
            around = sample + lengths[:, None, None] * directions
            shares = shares_by_enumeration(network, around.reshape(-1, 2), smoothing.sigma)
            is_other = (shares.argmax(axis=1) != voted).reshape(len(lengths), -1).any(axis=1)
            if is_other.any():
                way = lengths[is_other.argmax()]
                assert r <= way
                pairs.append((r, way))
    assert len(pairs) > 10
    assert max(r - 0.4 * way for r, way in pairs) > 0, "radii so small tell nothing"


def test_an_even_vote_abstains_and_a_first_layer_that_sees_nothing_is_safe_anywhere():
    x = np.zeros((20, 2), np.float32)
    radii = [r for _, r in certificates(LINEAR["one threshold"], x, MANY, generator())]
    assert radii == [0] * 20
    blind = network_of([(np.zeros((2, 1)), [9]), ([[2, 0]], [0, 1])], threshold)
    with np.errstate(divide="raise"):
        assert list(certificates(blind, x[:1], MANY, generator())) == [(0, np.inf)]


def test_noise_is_on_the_first_layer_alone_and_each_pass_votes_once(monkeypatch):
    network = new_network([4, 5, 6, 3], sigmoid, generator(1), scale=9)
    v = np.zeros(5, np.float32)
    quiet = Smoothing(1e-9, 2500, 0.001)  # in pieces, of which the last is not whole
    counts = votes(network, v, quiet, generator())
    (_, (W1, b1), (W2, b2)) = network.layers
    voted = (sigmoid(sigmoid(v) @ W1 + b1) @ W2 + b2).argmax()
    assert counts.tolist() == [2500 * (k == voted) for k in range(3)]
    loud = Smoothing(3.0, 2500, 0.001)
    whole = votes(network, v, loud, generator())
    assert whole.sum() == 2500
    assert np.count_nonzero(whole) > 1
    monkeypatch.setattr(certificate, "PASSES_AT_ONCE", 7)
    np.testing.assert_array_equal(votes(network, v, loud, generator()), whole)


def test_a_seed_repeats_and_more_samples_change_none_before_them():
    network = new_network([8, 10, 3], threshold, generator(1))
    x = generator(2).random((30, 8), dtype=np.float32)
    smoothing = Smoothing(1.0, 500, 0.001)
    first = list(certificates(network, x, smoothing, generator(3)))
    assert list(certificates(network, x, smoothing, generator(3))) == first
    assert list(certificates(network, x[:9], smoothing, generator(3))) == first[:9]
    assert list(certificates(network, x, smoothing, generator(4))) != first
    again = islice(certificates(network, np.tile(x[:1], (2, 1)), MANY, generator(3)), 2)
    (_, one), (_, other) = again
    assert one != other, "each sample has noise of its own"


@pytest.mark.parametrize(("activation", "sigma"), [(np.log, 1.0), (identity, 1e300)])
def test_logits_that_are_no_numbers_vote_for_nothing(activation, sigma):
    network = new_network([4, 5, 3], activation, generator())
    smoothing = Smoothing(sigma, 10, 0.001)
    with pytest.raises(GLRError, match="logits that are not finite"):
        list(certificates(network, np.ones((1, 4), np.float32), smoothing, generator()))


def test_certified_accuracy_counts_what_is_right_beyond_the_radius():
    found = Certified(None, 1.0, np.array([0, 0, 0.25, 0.5, np.inf]))
    np.testing.assert_array_equal(found.accuracies([0, 0.25, 0.4, 9]), [0.6, 0.4, 0.4, 0.2])


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with untrained networks of the digits; results are written beside it."""
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("GLR_MODELS_DIR", str(tmp_path / "models"))
    for name, seed, activation in (("LRS", 0, sigmoid), ("LRS", 1, sigmoid), ("LRT", 0, threshold)):
        save_quick_model(tmp_path / "models", name, seed, activation)
    return tmp_path / "models"


WORDS = ("--images", 40, "--passes", 300, "--sigmas", 0.5, 2, "--radii", 0.1, 0.2)
WITHIN = ("within 0", "within 0.1", "within 0.2")


def test_the_script_writes_table_and_picture_the_same_again(models, tmp_path):
    ran = run("certify.py", *WORDS, "--models", *sorted(models.glob("*.npz")))
    assert (ran.returncode, ran.stderr) == (0, "")
    path = tmp_path / "results" / "digits_certified.csv"
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, "digits_certified.png"]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {(r["model"], r["seed"], r["condition"], r["severity"]) for r in rows}
    assert len(rows) == len(kinds) == 3 * (1 + 2 * 3)
    assert {r["n"] for r in rows} == {"40"}
    for one in rows[3::3]:
        at = rows.index(one)
        shares = [float(r["accuracy"]) for r in rows[at : at + 3]]
        assert shares == sorted(shares, reverse=True)
        assert one["condition"] in ("certified, sigma 0.5", "certified, sigma 2")
    (header,) = re.findall(r"^model .*", ran.stdout, re.MULTILINE)
    assert re.split(" {2,}", header) == ["model", "noise-free", "σ", *WITHIN]
    assert len(re.findall(r"^LRS .*±", ran.stdout, re.MULTILINE)) == 2
    before = path.read_bytes()
    assert run("certify.py", *WORDS, "--models", models / "LRT_digits_seed0.npz").returncode == 0
    alone = path.read_text().splitlines()[1:]
    assert [line for line in before.decode().splitlines() if line.startswith("LRT")] == alone


def certify(*words):
    """As `python certify.py words`, in this process."""
    script = runpy.run_path(command("certify.py")[1])
    write_certificates(script_constants(script, [*map(str, words)]))


def test_the_page_has_the_networks_of_the_script_and_the_commands_that_train_them(models, tmp_path):
    """Untrained here, in the place of those that the tasks describe."""
    script = runpy.run_path(command("certify.py")[1])
    own = script_constants(script, ["--seeds", "2"])
    own.MODELS_DIR = models / "certified"
    wanted = tasks(own, script["NETWORKS"], ["digits"])
    assert len(wanted) == 2 * len(script["NETWORKS"])
    for task in wanted:
        network = new_network([64, 5, 10], sigmoid, generator(task.seed))
        metadata = {"activation": "sigmoid", "dataset": "digits", "constants": task.recorded}
        save_model(task.path, network, metadata)
    few = ("--seeds", 2, "--images", 9, "--passes", 20, "--sigmas", 1, "--radii", 0.1)
    ran = run("certify.py", "--write-docs", *few)
    assert (ran.returncode, ran.stderr) == (0, "")
    page = (tmp_path / "results" / "certified_part.md").read_text()
    assert page.startswith("On digits, the first 9 test images, 20 passes, α 0.001, 2 seeds:\n")
    for name, (file, flags) in script["NETWORKS"].items():
        assert re.search(rf"^\| {name} \| [\d.]+ ± .* \|$", page, re.MULTILINE)
        assert f'- {name}: `python "Train&Test/{file}" --dataset digits {flags}`' in page


OWN = "import numpy as np\n\n\ndef stairs(v):\n    return np.round(v)\n"


def test_a_network_of_one_s_own_activation_is_certified(models, tmp_path, capsys):
    def stairs(v):
        return np.round(v)

    save_quick_model(models, "own", 0, stairs)
    (tmp_path / "own.py").write_text(
        "import numpy as np\n\n\ndef stairs(v):\n    return np.round(v)"
    )
    own = ("--models", models / "own_digits_seed0.npz", *WORDS)
    with pytest.raises(GLRError, match="'stairs' is none of glr's"):
        certify(*own)
    certify(*own, "--functions", tmp_path / "own.py")
    assert "own" in capsys.readouterr().out


def test_what_cannot_be_written_is_refused_before_the_work(models, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("GLR_RESULTS_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(certificate, "certificates", None)
    with pytest.raises(GLRError, match=r"digits_certified\.csv: cannot be written"):
        certify(*WORDS)


def test_a_picture_that_cannot_be_drawn_costs_no_figure(models, tmp_path, monkeypatch, capsys):
    (tmp_path / "results" / "digits_certified.png").mkdir(parents=True)
    certify(*WORDS)
    said = capsys.readouterr()
    assert said.err.startswith("no picture: ")
    assert "within 0.2" in said.out
    assert (tmp_path / "results" / "digits_certified.csv").exists()


@pytest.mark.parametrize(
    "words", ["--sigmas 0", "--radii -1", "--passes 0", "--alpha 0", "--alpha 1", "--sigmas nan"]
)
def test_constants_that_certify_nothing_are_refused(words):
    name = words.split()[0].removeprefix("--").upper()
    with pytest.raises(GLRError, match=f"^{name} = .*: must be a"):
        certify(*words.split())
