"The study's runner, its measures and its statistics; results themselves are not tested"
import sys
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from pytest import param
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss
from helpers import quiet, run_process

root = Path(__file__).parent.parent
sys.path.insert(0, str(root))
from fastai.basics import CrossEntropyLossFlat, DataLoader, DataLoaders, Learner
from fastai_labelsmooth.callback import LabelSmooth
from fastai_labelsmooth.smoothers.forward import Forward
from fastai_labelsmooth.wrong_labels.noise import fit_noise, named_wrong
from study import arms, claims, data, measures, plan, run, stack, tables
from study import statistics as st

seeds = 1, 2, 3
fit = stack.Fit(1e-2, 16, 3)

@pytest.fixture(scope='module')
def cell(): return arms.Cell(data.world('wine', 'symmetric 20', seeds), fit)

@pytest.fixture(scope='module')
def table():
    jobs = ('wine', 'symmetric 20', 'short', seeds), ('wine', 'none', 'long', seeds)
    with pytest.MonkeyPatch.context() as m:
        for o in ('short', 'long'): m.setitem(plan.fits, ('wine', o), fit)
        return pd.concat([run.run_cell(*o) for o in jobs])

# The world

def test_no_item_is_in_two_parts_and_each_seed_has_parts_of_its_own():
    w = data.world('wine', 'none', seeds)
    for parts in zip(w.train, w.valid, w.test): assert sorted(np.concatenate(parts)) == list(range(178))
    assert (w.train[0] != w.train[1]).any()

def test_a_seed_s_world_does_not_depend_on_the_others():
    a,b = data.world('wine', 'asymmetric', (1, 2, 3)),data.world('wine', 'asymmetric', (3,))
    for k in ('train', 'valid', 'test', 'labels'): assert (getattr(a, k)[2] == getattr(b, k)[0]).all()

@pytest.mark.parametrize('noise', ['none', 'symmetric 30', 'asymmetric'])
@pytest.mark.parametrize('name', ['digits', 'breast_cancer'])
def test_labels_are_wrong_as_the_matrix_says(name, noise):
    w = data.world(name, noise, range(40))
    seen = np.stack([[(w.labels[:, w.data.y == k] == j).mean() for j in range(w.data.n)] for k in range(w.data.n)])
    np.testing.assert_allclose(seen, w.T, atol=.02)
    assert (w.labels != w.data.y).mean() == pytest.approx(w.eps, abs=.01)

def test_asymmetric_noise_of_two_classes_is_30_and_5_percent():
    np.testing.assert_allclose(data.world('breast_cancer', 'asymmetric', [1]).T, [[.95, .05], [.3, .7]])

def test_one_vote_is_drawn_as_people_voted():
    d = data.Data('few', np.zeros((2, 1)), np.array([0, 2]), 3, np.array([[6, 3, 1], [0, 2, 8]]))
    draws = np.stack([data.observed(d, None, 'one vote', np.random.default_rng(k)) for k in range(4000)])
    seen = [[(draws[:, i] == k).mean() for k in range(3)] for i in (0, 1)]
    np.testing.assert_allclose(seen, [[.6, .3, .1], [0, .2, .8]], atol=.03)

# The stack

def _alone(w, k, fit, cbs):
    "Seed `k` of a world by fastai alone: plain layers, plain loss, the same start and the same batches"
    ours = stack.Stack([w.seeds[k]], w.data.x.shape[1:], w.data.n, fit.hidden)
    model = torch.nn.Sequential(torch.nn.Linear(13, fit.hidden), torch.nn.ReLU(), torch.nn.Linear(fit.hidden, w.data.n))
    with torch.no_grad():
        for plain,layer in zip((model[0], model[2]), (ours.layers[0], ours.layers[2])):
            plain.weight.copy_(layer.weight[0].T)
            plain.bias.copy_(layer.bias[0, 0])
    steps = fit.epochs*round(w.train.shape[1]/fit.bs)
    order = stack.Batches(w.data.x, w.labels, [w.train[k]], [w.seeds[k]], fit.bs, steps).order[:, 0]
    items = [(torch.tensor(w.data.x[i]), torch.tensor(w.labels[k, i])) for i in order]
    learn = quiet(Learner(DataLoaders(DataLoader(items, bs=fit.bs), []), model, CrossEntropyLossFlat(), cbs=cbs))
    learn.fit_one_cycle(1, fit.lr)
    return [model[0].weight.T, model[0].bias, model[2].weight.T, model[2].bias]

@pytest.mark.parametrize('smooth', [
    param(lambda: None, id='hard'),
    param(lambda: LabelSmooth(.2), id='exact'),
    param(lambda: LabelSmooth(.2, 'forward'), id='forward')])
def test_a_seed_trained_in_the_stack_equals_one_trained_alone(smooth):
    w = data.world('wine', 'symmetric 20', seeds)
    model,_ = stack.train(w.data.x, 3, w.seeds, list(w.train), w.labels, fit, smooth())
    for k in range(3):
        alone = _alone(w, k, fit, smooth())
        for a,b in zip(alone, (p for i in (0, 2) for p in (model.layers[i].weight, model.layers[i].bias))):
            torch.testing.assert_close(a, b[k].squeeze(0) if a.ndim == 1 else b[k], rtol=1e-4, atol=1e-5)

def test_each_network_passes_over_its_own_items_in_its_own_order():
    items = [np.arange(10), np.arange(10), np.arange(20, 26)]
    order = stack.Batches(np.zeros((30, 2)), np.zeros((3, 30)), items, [1, 2, 3], 4, 5).order
    for k,own in enumerate(items):
        for o in range(0, 20-len(own)+1, len(own)): assert sorted(order[o:o+len(own), k]) == list(own)
    assert (order[:10, 0] != order[:10, 1]).any() and (order[:10, 0] != order[10:, 0]).any()

def test_convolutions_of_a_stack_are_torch_s():
    conv,x = stack.Conv([1, 2], 3, 4, 5),torch.randn(2, 6, 3, 9, 9)
    for k in range(2):
        weight = conv.linear.weight[k].T.view(4, 3, 5, 5)
        expected = torch.nn.functional.conv2d(x[k], weight, conv.linear.bias[k, 0], stride=2, padding=2)
        torch.testing.assert_close(conv(x)[k], expected)

def test_networks_of_a_stack_do_not_know_of_each_other():
    m,x = stack.Stack([1, 2, 3], (5,), 4, 7),torch.randn(6, 3, 5)
    other = x.clone()
    other[:, 0] += 1
    assert torch.equal(m(x)[:, 1:], m(other)[:, 1:]) and not torch.equal(m(x)[:, 0], m(other)[:, 0])

def test_a_matrix_for_each_network_is_forward_with_that_matrix():
    T = np.stack([data.symmetric(3, .2), np.array([[.8, .2, 0], [.1, .8, .1], [0, .3, .7]])])
    z,targ = torch.randn(8, 2, 3, requires_grad=True),torch.randint(3, (8, 2))
    from fastai_labelsmooth.losses import soft_cross_entropy
    from fastai_labelsmooth.smoothers.core import Batch
    from fastai_labelsmooth.pairing import Task
    task = Task(3, 2, -100, False)
    soft = arms.per_network(T)(targ, Batch(task, pred=z.detach()))
    mine = torch.autograd.grad(soft_cross_entropy(z, soft, 2, reduction='sum'), z)[0]
    for k in range(2):
        zk = z[:, k].detach().requires_grad_()
        mode,batch = Forward(T[k]),Batch(task._replace(axis=1), None, zk.detach())
        loss = soft_cross_entropy(mode.observed(zk, batch), mode(targ[:, k], batch), 1, reduction='sum')
        theirs = torch.autograd.grad(loss, zk)[0]
        torch.testing.assert_close(mine[:, k], theirs, rtol=1e-4, atol=1e-5)

# The arms

def test_issues_are_labels_that_are_not_the_most_probable_class_given_the_label():
    rng = np.random.default_rng(0)
    p,labels = softmax(rng.normal(size=(90, 3))*2, 1),rng.integers(3, size=90)
    T = arms.joint_matrix(p, labels)
    assert np.allclose(T.sum(1), 1) and (T >= 0).all()
    want = [max(range(3), key=lambda k: p[i, k]*T[k, y]) != y for i,y in enumerate(labels)]
    assert list(arms.posterior_issues(p, T, labels)) == want and any(want)

def test_out_of_fold_models_have_not_seen_the_item(cell, monkeypatch):
    seen = {}
    def spy(x, n, seeds, items, *args):
        seen['items'] = items
        return train(x, n, seeds, items, *args)
    train = arms.train
    monkeypatch.setattr(arms, 'train', spy)
    kept = np.ones(cell.world.train.shape, bool)
    kept[:, 0] = False
    p,_ = arms.out_of_fold(cell, kept)
    fold = arms.folds(cell)
    for r in range(3):
        for k in range(5):
            items = seen['items'][5*r+k]
            assert not set(items) & set(cell.world.train[r][fold[r] == k]) and cell.world.train[r][0] not in items
    np.testing.assert_allclose(p.sum(-1), 1)

def test_eps_find_takes_each_seed_s_most_likely_eps(cell):
    res = arms.choose(cell, 'forward')
    labels = cell.labels(cell.world.valid)
    for k in range(3):
        tried = {e: arms.smooth(cell, 'forward', e) for e in (0, *arms.grid)}
        def nll(o, e):
            z = o.valid[:, k]
            return log_loss(labels[:, k], softmax(z, 1)@data.symmetric(3, e), labels=range(3))
        best = min(tried, key=lambda e: nll(tried[e], e))
        assert res.eps[k] == best
        np.testing.assert_array_equal(res.test[:, k], tried[best].test[:, k])

def test_forward_one_trains_each_network_with_the_eps_of_its_own_validation_labels(cell):
    first,res = arms.hard(cell),arms.softmax_arms['forward one'](cell)
    labels = cell.labels(cell.world.valid)
    for k in range(3):
        eps = fit_noise(softmax(first.valid[:, k], 1), labels[:, k]).share
        assert res.eps[k] == pytest.approx(eps)
        torch.testing.assert_close(res.weights[k], cell.train('forward', eps).weights[k], rtol=1e-3, atol=1e-4)
    assert len(set(res.eps)) == 3

@pytest.mark.parametrize('arm', ['forward valid T', 'forward oof T'])
def test_forward_takes_the_matrix_of_the_library_s_noise_model(cell, arm):
    w,res = cell.world,arms.softmax_arms[arm](cell)
    if arm == 'forward valid T': p,labels = softmax(arms.hard(cell).valid, -1).transpose(1, 0, 2),cell.labels(w.valid).T
    else: p,labels = arms.hard_folds(cell)[0],[o[items] for o,items in zip(w.labels, w.train)]
    for k in range(3):
        T = fit_noise(p[k], labels[k], by_class=True).T
        np.testing.assert_allclose(res.T[k], T)
        torch.testing.assert_close(res.weights[k], cell.train(Forward(T)).weights[k], rtol=1e-3, atol=1e-4)

def test_a_matrix_that_the_library_refuses_is_counted(cell):
    right,wrong = data.symmetric(3, .2),np.array([[.4, .6, 0], [.1, .9, 0], [0, 0, 1]])
    with pytest.raises(ValueError): Forward(wrong)
    assert list(arms.matrix(cell, np.stack([right, wrong, right])).extra['refused']) == [False, True, False]

def _spy(monkeypatch, cell):
    "The items and labels of the next training"
    seen = {}
    def train(targets=None, items=None):
        seen.update(targets=targets, items=items)
        return arms.hard(cell)
    monkeypatch.setattr(cell, 'train', train)
    return seen

@pytest.mark.parametrize('arm', ['issues even', 'issues by class', 'issues even relabelled'])
def test_fitted_issues_are_those_of_the_library_from_five_hard_models(cell, arm, monkeypatch):
    w,p = cell.world,arms.hard_folds(cell)[0]
    arms.hard(cell)
    seen = _spy(monkeypatch, cell)
    extra = arms.softmax_arms[arm](cell).extra
    for k in range(3):
        items = w.train[k]
        labels,y = w.labels[k][items],w.data.y[items]
        noise = fit_noise(p[k], labels, arm == 'issues by class')
        named = named_wrong(noise.prob_wrong(p[k], labels), p[k], labels)
        assert 0 < named.sum() < len(named)
        hits = (named & (labels != y)).sum()
        expected = dict(precision=hits/named.sum(), recall=hits/(labels != y).sum(), removed=named.mean())
        assert {o: v[k] for o,v in extra.items()} == pytest.approx(expected)
        if arm != 'issues even relabelled':
            assert list(seen['items'][k]) == list(items[~named]) and seen['targets'] is None
            continue
        new = seen['targets'][k][items]
        assert seen['items'] is None and (new[~named] == labels[~named]).all()
        # wrong evenly: the likeliest other class is the one with the highest probability
        others = np.where(np.eye(3, dtype=bool)[labels], -1, p[k])
        assert list(new[named]) == list(others.argmax(1)[named])
        kept = np.setdiff1d(np.arange(len(w.data.y)), items)
        assert (seen['targets'][k][kept] == w.labels[k][kept]).all()

def test_issues_and_cleanlab_judge_the_same_predictions(cell, monkeypatch):
    pytest.importorskip('cleanlab')
    own = arms.Cell(cell.world, fit)
    own.done['hard folds'] = arms.hard_folds(cell)
    def no(*args, **kwargs): raise AssertionError('five models more')
    monkeypatch.setattr(arms, 'out_of_fold', no)
    for arm in 'issues even', 'issues by class', 'forward oof T', 'cleanlab prune': arms.softmax_arms[arm](own)

def test_likely_class_is_the_most_probable_other_one():
    noise = fit_noise(softmax(np.random.default_rng(0).normal(size=(60, 3))*3, 1), np.arange(60) % 3, by_class=True)
    p,labels = np.array([[.5, .3, .2], [.1, .2, .7], [.05, .5, .45]]),np.array([0, 2, 1])
    q = noise.clean(p)
    expected = [max({0, 1, 2}-{y}, key=lambda k: q[i, k]*noise.T[k, y]) for i,y in enumerate(labels)]
    assert list(arms.likely_class(noise, p, labels)) == expected

def test_labels_scored_one_by_one_keep_their_order():
    pytest.importorskip('river', reason='river, which brings these data, needs Python 3.11')
    w = data.world('yeast', 'none', (1, 2))
    cell = arms.Cell(w, stack.Fit(1e-2, 64, 1, 8))
    res = cell.train()
    y,observed = cell.labels(w.valid, w.data.y),cell.labels(w.valid)
    np.testing.assert_array_equal(y, observed)
    np.testing.assert_array_equal(y[:14, 1], w.data.y[w.valid[1, 0]])
    assert res.valid.shape == (len(w.valid[0])*14, 2, 2)

# The endpoints

def test_endpoints_are_sklearn_s():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(200, 2, 3))*2
    y = np.array([[rng.choice(3, p=p) for p in o] for o in softmax(z*.7, -1)])
    e = measures.endpoints(z, y, z, y)
    for k in range(2):
        p = softmax(z[:, k], 1)
        assert e['accuracy'][k] == (p.argmax(1) == y[:, k]).mean()
        assert e['nll'][k] == pytest.approx(log_loss(y[:, k], p))
        assert e['brier'][k] == pytest.approx(brier_score_loss(y[:, k], p, scale_by_half=False))
        conf,right = p.max(1),p.argmax(1) == y[:, k]
        bins = [(conf > b/15) & (conf <= (b+1)/15) for b in range(15)]
        assert e['ece'][k] == pytest.approx(sum(abs(conf[b].mean()-right[b].mean())*b.mean() for b in bins if b.any()))
        order = np.argsort(-conf)
        assert e['aurc'][k] == pytest.approx(np.mean([1-right[order[:n]].mean() for n in range(1, 201)]))
        def scaled(t): return log_loss(y[:, k], softmax(z[:, k]/t, 1))
        assert all(scaled(e['temp'][k]) <= scaled(e['temp'][k]*o)+1e-9 for o in (.8, .99, 1.01, 1.25))
        assert e['nll_t'][k] == pytest.approx(scaled(e['temp'][k]))

def test_temperature_looks_through_the_noise():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(20_000, 1, 3))*2
    T = data.symmetric(3, .3)
    y = np.array([[rng.choice(3, p=p)] for p in softmax(z[:, 0], -1)])
    labels = np.array([[rng.choice(3, p=T[k])] for k in y[:, 0]])
    assert measures.temperature(3*z, labels, T[None])[0] == pytest.approx(3, rel=.1)
    assert measures.temperature(3*z, labels)[0] > 5

# The table

@pytest.mark.slow
def test_table_has_its_columns_and_a_row_for_each_arm_and_seed(table):
    assert list(table.columns) == run.columns
    assert not table.duplicated(run.keys).any() and not table.failed.notna().any()
    expected = {o for o in arms.softmax_arms if o != 'cleanlab prune' or 'cleanlab' in run.versions()}
    for _,part in table.groupby(['data', 'noise', 'regime']):
        assert set(part.arm) == expected and set(part.seed) == set(seeds) and len(part) == 3*len(expected)
    assert table[['accuracy', 'nll', 'brier', 'ece', 'nll_t', 'aurc', 'seconds']].notna().all(None)
    assert (table[table.arm == 'paper rescaled'].weight_gap <= 1e-5).all()

@pytest.mark.slow
def test_a_rerun_of_a_row_gives_the_same_numbers(table, monkeypatch):
    monkeypatch.setitem(plan.fits, ('wine', 'short'), fit)
    for arm in 'forward eps_find', 'issues 1 round':
        again = run.run_cell('wine', 'symmetric 20', 'short', seeds, [arm]).set_index('seed')
        before = table[(table.arm == arm) & (table.noise == 'symmetric 20')].set_index('seed')
        pd.testing.assert_frame_equal(again.drop(columns='seconds'), before.drop(columns='seconds'), check_dtype=False)

def test_a_failed_run_is_a_row(monkeypatch):
    def fails(cell): raise ValueError("no such luck")
    monkeypatch.setattr(run, 'arms_of', lambda data: {'hard': fails})
    table = run.run_cell('wine', 'none', 'short', seeds)
    assert len(table) == 3 and (table.failed == 'ValueError: no such luck').all() and table.nll.isna().all()

def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    jobs = [('wine', 'none', 'short', seeds), ('wine', 'none', 'long', seeds)]
    row = pd.DataFrame([dict(data='wine', noise='none', regime='short', arm='hard', seed=1)])
    run.save(row.reindex(columns=run.columns), tmp_path/'results.csv')
    left,table = run.missing(jobs, tmp_path/'results.csv')
    assert left == jobs[1:] and len(table) == 1 and [o.name for o in tmp_path.iterdir()] == ['results.csv']

def test_named_arms_are_run_in_the_cells_that_lack_them(tmp_path):
    jobs = [('wine', 'none', 'short', seeds), ('wine', 'none', 'long', seeds)]
    row = dict(data='wine', noise='none', regime='short', seed=1)
    table = pd.DataFrame([dict(row, arm='hard'), dict(row, arm='votes')])
    run.save(table.reindex(columns=run.columns), tmp_path/'t.csv')
    left,_ = run.missing(jobs, tmp_path/'t.csv', ['hard', 'forward one'])
    assert left == [(*jobs[0], ['forward one']), (*jobs[1], ['hard', 'forward one'])]
    assert not run.missing(jobs[:1], tmp_path/'t.csv', ['hard', 'votes'])[0]

def test_plan_is_that_of_the_study():
    cells = {o[:3] for o in plan.plan}
    assert len(cells) == len(plan.plan) and all(o[:2] in plan.fits or (o[0], o[2]) in plan.fits for o in cells)
    assert {o[0] for o in cells} == {'breast_cancer', 'wine', 'digits', 'mnist', 'snippets', 'yeast'}
    assert all(len(o[3]) == 30 for o in plan.plan if o[0] != 'mnist') and not any(0 in o[3] for o in plan.plan)

# The statistics

def test_a_hand_worked_case():
    # mean 2, variance 1; with test/training items of 1/3: SE = sqrt(1/3+1/3) = .8165, t = 2.449, 2 degrees of freedom
    diff = [1, 2, 3]
    m = st.t_test(diff, ratio=1/3)
    assert m.mean == 2 and st.standard_error(diff, 1/3) == pytest.approx(.81650, abs=1e-5)
    # with 2 degrees of freedom the distribution is t/sqrt(2+t^2)/2 + 1/2
    t = 2/.8164966
    assert m.p == pytest.approx(1-t/np.sqrt(2+t*t), abs=1e-6)
    assert (m.lo, m.hi) == pytest.approx((2-4.302653*.8164966, 2+4.302653*.8164966), abs=1e-4)
    assert st.tost(diff, 10, 1/3).p == pytest.approx(max(1-stats.t.cdf(12/.8164966, 2), stats.t.cdf(-8/.8164966, 2)))

@pytest.mark.parametrize('side', ['two-sided', 'less', 'greater'])
def test_without_overlap_it_is_scipy_s(side):
    diff = np.random.default_rng(0).normal(.3, 1, 20)
    ours,theirs = st.t_test(diff, .1, side, ratio=0),stats.ttest_1samp(diff, .1, alternative=side)
    assert ours.p == pytest.approx(theirs.pvalue)
    if side == 'two-sided': assert (ours.lo, ours.hi) == pytest.approx(tuple(theirs.confidence_interval()))

def test_overlap_makes_it_wider():
    diff = np.random.default_rng(0).normal(.3, 1, 20)
    assert st.t_test(diff).hi-st.t_test(diff).lo > 2*(st.t_test(diff, ratio=0).hi-st.t_test(diff, ratio=0).lo)

def test_equivalence_needs_both_sides():
    diff = np.random.default_rng(0).normal(0, .1, 30)
    assert st.tost(diff, 1).p < .001 and st.tost(diff+2, 1).p > .99 and st.tost(diff-2, 1).p > .99
    assert st.not_worse(diff+2, 1).p < .001 and st.not_worse(diff-2, 1).p > .99

def test_nothing_different_at_all():
    assert st.t_test([0, 0, 0]).p == 1 and st.tost([0, 0, 0], .1).p == 0
    with pytest.raises(ValueError, match='finite'): st.t_test([1, np.nan])

def test_holm_by_hand():
    # sorted .01, .02, .03, .04 times 4, 3, 2, 1: .04, .06, .06, .04, which may not fall
    np.testing.assert_allclose(st.holm([.03, .01, .04, .02]), [.06, .04, .06, .06])

def _made_up(**values):
    "A table of one cell: arm -> (column -> (mean, deviation))"
    rng = np.random.default_rng(0)
    rows = []
    for arm,cols in values.items():
        draws = {k: rng.normal(m, s, 30) for k,(m,s) in cols.items()}
        cell = dict(data='wine', noise='symmetric 20', regime='long', arm=arm.replace('_eps', ' eps'), seed=range(30))
        rows.append(pd.DataFrame({**cell, **draws}))
    return pd.concat(rows)

def _h4(forward, exact):
    table = _made_up(forward_eps_find=dict(accuracy=forward), exact_eps_find=dict(accuracy=exact))
    return claims.h4b(claims.Cells(table))

def test_a_claim_is_held_contradicted_or_open():
    assert _h4((.9, .01), (.8, .01)).word == 'held'
    worse,unclear = _h4((.8, .01), (.9, .01)),_h4((.85, .1), (.84, .1))
    assert worse.word == unclear.word == 'refuted'
    assert list(worse.rows.result) == ['contradicted'] and list(unclear.rows.result) == ['open']

def test_a_claim_with_a_failed_run_is_not_shown():
    t = _made_up(forward_eps_find=dict(accuracy=(.9, .01)), exact_eps_find=dict(accuracy=(.8, .01)))
    t.loc[t.index[3], 'accuracy'] = np.nan
    assert claims.h4b(claims.Cells(t)).word == 'refuted'

def test_a_claim_is_judged_again_with_the_arms_that_came_later():
    def cell(**mean): return {'accuracy': (mean['acc'], .001)}
    t = _made_up(hard=cell(acc=.7), forward_eps_find=cell(acc=.7), exact_eps_find=cell(acc=.7)).assign(noise='none')
    t['arm'] = t.arm.replace({'forward_eps find': 'forward eps_find', 'exact_eps find': 'exact eps_find'})
    assert claims.h5(claims.Cells(t)).word == 'held'
    one = t[t.arm == 'hard'].assign(arm='forward one', accuracy=.5)
    c = claims.Cells(pd.concat([t, one]))
    old,new = (f(c) for f in (claims.h5, claims.again[0]))
    assert old.word == 'held' and (new.name, new.word) == ('H5 again', 'refuted')
    assert list(new.rows.result) == ['contradicted', 'shown']

def test_arms_that_came_later_change_no_claim_of_before():
    assert set(claims.later) <= set(arms.softmax_arms) and not set(claims.later) & {*arms.arms, 'votes'}
    values = {'nll_votes': (1., .1), 'accuracy': (.5, .1), 'nll': (1., .1)}
    t = _made_up(hard=values, votes=values)
    t = pd.concat([t.assign(data='snippets'), t[t.arm == 'hard'].assign(data='snippets', arm='forward true eps')])
    with_later = pd.concat([t, t[t.arm == 'hard'].assign(arm='issues even')])
    before,after = (claims.h7(claims.Cells(o)).rows for o in (t, with_later))
    pd.testing.assert_frame_equal(before, after)

@pytest.mark.slow
def test_all_claims_can_be_judged(table):
    judged = claims.judge(table)
    again = ['H5 again', 'H6 again', 'H9 again']
    assert list(judged) == ['H1', 'H2', 'H3', 'H4a', 'H4b', 'H5', 'H6', 'H7', 'H8', 'H9', *again]
    assert judged['H1'].held and judged['H7'].word == 'not tested'
    assert claims.report(table).count('\n') == 13

def test_command_line_is_no_stranger_to_python_s_statistics():
    "The folder has a module of that name, which Python would find first"
    assert '--only' in run_process([sys.executable, root/'study/run.py', '--help'], 120)

def test_only_names_rows_of_the_plan(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run, 'plan', [o for o in plan.quick_plan if o[0] == 'wine'])
    run.rerun('data=wine,arm=exact 0.1,seed=3', tmp_path/'none.csv')
    again = capsys.readouterr().out.split('again')[1].split('table')[0]
    assert again.count('exact 0.1') == 1 and ' 3 ' in again
    with pytest.raises(SystemExit, match='no such cell'): run.rerun('data=wine,noise=none', tmp_path/'none.csv')
    with pytest.raises(SystemExit, match='expected some of'): run.rerun('date=wine', tmp_path/'none.csv')

def test_each_seed_chooses_by_its_own_labels():
    values = [('hard', 1, .9, .1), ('hard', 2, .5, .2), ('exact 0.1', 1, .9, .3), ('exact 0.1', 2, .6, .4)]
    t = pd.DataFrame(values, columns=['arm', 'seed', 'valid_accuracy', 'accuracy'])
    t = t.assign(data='d', noise='n', regime='long')
    c,cell = claims.Cells(t),('d', 'n', 'long')
    chosen = claims.each_by(c, cell, 'exact')
    assert chosen.to_dict() == {1: 'hard', 2: 'exact 0.1'}
    assert claims.of_each(c, cell, chosen, 'accuracy').to_dict() == {1: .1, 2: .4}

def test_what_refutes_a_claim():
    rows = pd.DataFrame({'result': ['shown', 'open']})
    assert claims.Claim('', '', rows).word == 'refuted'
    assert claims.Claim('', '', rows, ('contradicted',)).word == 'open'
    assert claims.Claim('', '', rows.replace('open', 'contradicted'), ('contradicted',)).word == 'refuted'

def _means(**accuracy):
    "Rows of one data set, by arm: an accuracy for each seed"
    each = [(arm, k, a) for arm,values in accuracy.items() for k,a in enumerate(values)]
    return pd.DataFrame([dict(arm=arm, seed=k, accuracy=a, nll=1-a) for arm,k,a in each])

def test_study_and_suite_are_one_table_of_equal_data_sets():
    study = _means(**{o: (.8,)*4 for o in tables.in_suite}, votes=(.1,))
    study = study.assign(data='wine', noise='asymmetric', regime='long')
    study.loc[study.arm == 'forward one', 'accuracy'] = [.9, .9, .8, .8]
    suite = _means(**{o: (.6,) for o in tables.in_suite.values()}, argmax=(.1,))
    suite = suite.assign(data='iris', noise='by class 30', regime='long')
    suite.loc[suite.arm == 'even', 'accuracy'] = .5
    lacking = suite[suite.arm != 'cleanlab'].assign(data='seven', accuracy=.1)
    rare = suite.assign(data='digits rare 8', accuracy=.1)
    means = tables.with_suite(study, pd.concat([suite, lacking, rare]))
    assert set(means.data) == {'wine', 'iris'} and set(means.noise) == {'asymmetric'}
    gain = means.set_index(['data', 'arm']).accuracy_gain
    assert gain['wine', 'forward one'] == pytest.approx(.05) and gain['iris', 'issues even'] == pytest.approx(-.1)
    shown = tables.overall(means)
    assert list(shown.columns) == [('', 'trainings'), ('long fit', '30% by class (2)')]
    assert list(shown.iloc[:, 1]) == ['70.0%', '72.5%', '70.0%', '65.0%', '70.0%', '70.0%']
    assert list(shown.iloc[:, 0]) == [1, 2, 6, 6, 6, 6]
    assert list(tables.worse_than_hard(means).iloc[:, 1]) == ['0', '0', '0', '1', '0', '0']
