"""The claims of STUDY.md, each judged by its rule from the table. Nothing here was changed after results were seen.
A claim is *held* if each comparison that it is about is shown (p below 0.05 after Holm's correction within the claim).
A comparison that is not shown is *contradicted* (its interval lies on the other side) or *open*. STUDY.md says what
refutes a claim: mostly that something is not shown. H7 is refuted by the reverse only, otherwise *open*.
Where STUDY.md leaves a choice: H2 and H3 are about all cells; H4 and H5 with `eps_find`'s eps; what forward costs
on clean labels is its NLL; H8 is about the cells whose mean accuracy gains at all; the best eps in
hindsight is the one with the best mean accuracy over the seeds of the cell; H7's forward has the share of votes that
miss the majority as its eps; H9's "forward alone" is one training with the true eps, and "it" is cleanlab's result.
H5, H6 and H9 are judged again, by the same rules, with the library's noise model (`fit_noise`), which was made later:
`forward one` for `forward eps_find`; `forward valid T` for `forward noise_matrix`, against `forward one`; `issues even`
(five trainings, as cleanlab's) for `issues 2 rounds` (ten), and `forward one` for the true eps. This was written before
these arms were run; Yeast has none of them"""
from functools import partial
from typing import NamedTuple
import numpy as np
import pandas as pd
from .statistics import Mean, holm, not_worse, t_test, tost

cell_keys = ['data', 'noise', 'regime']
grid = 0., .05, .1, .2, .3, .4
later = 'forward one', 'forward valid T', 'forward oof T', 'issues even', 'issues by class', 'issues even relabelled'

class Claim(NamedTuple):
    name:str
    says:str
    rows:pd.DataFrame # A row for each comparison
    refutes:tuple = ('open', 'contradicted') # Results of a comparison that refute it

    @property
    def held(self): return len(self.rows) > 0 and bool((self.rows.result == 'shown').all())
    @property
    def word(self):
        if self.held: return 'held'
        if self.rows.empty: return 'not tested'
        return 'refuted' if self.rows.result.isin(self.refutes).any() else 'open'
    def counts(self): return self.rows.result.value_counts().to_dict()

class Cells:
    "The table by cell, arm and seed"
    def __init__(self, table): self.table = table.set_index([*cell_keys, 'arm', 'seed']).sort_index()

    def all(self, data=None, noise=None, regime=None):
        "The cells with one of the given `data`, `noise` and `regime` (None: any)"
        asked = data,noise,regime
        cells = self.table.index.droplevel(['arm', 'seed']).unique()
        return [c for c in cells if all(o is None or k in o for k,o in zip(c, asked))]

    def arms(self, cell): return list(self.table.loc[cell].index.get_level_values('arm').unique())
    def values(self, cell, arm, column):
        "By seed; NaN where a run failed"
        return self.table.loc[(*cell, arm), column].astype(float)
    def diff(self, cell, a, b, column, column_b=None):
        "The column of arm `a` minus that of arm `b`, by seed"
        return self.values(cell, a, column)-self.values(cell, b, column_b or column)

def compare(cell, measure, what, diff, test, bounds):
    "A comparison as a row: mean difference by seed, 95% interval, p of `test`; the mean should lie between `bounds`"
    base = dict(zip(cell_keys, cell), measure=measure, what=what)
    try: m = test(np.asarray(diff))
    except ValueError: m = Mean(np.nan, np.nan, np.nan, 1., len(diff)) # a failed run: nothing is shown
    return dict(base, **m._asdict(), contradicted=bool(m.hi < bounds[0] or m.lo > bounds[1]))

def lower(*row): return compare(*row, partial(t_test, alternative='less'), (-np.inf, 0))
def higher(*row): return compare(*row, partial(t_test, alternative='greater'), (0, np.inf))
def differs(*row): return compare(*row, t_test, (-np.inf, np.inf))
def same(*row, margin): return compare(*row, partial(tost, margin=margin), (-margin, margin))
def no_worse(*row, margin): return compare(*row, partial(not_worse, margin=margin), (-margin, np.inf))

def claim(name, says, rows, **kwargs):
    "All comparisons of a claim, with Holm's correction over those that have a test"
    names = [*cell_keys, 'measure', 'what', 'mean', 'lo', 'hi', 'p', 'n', 'contradicted', 'p_holm', 'result']
    rows = pd.DataFrame(rows, columns=names)
    if rows.empty: return Claim(name, says, rows)
    rows['contradicted'] = rows.contradicted.astype(bool)
    rows['p_holm'] = holm(rows.p)
    rows['result'] = np.select([rows.p_holm < .05, rows.contradicted], ['shown', 'contradicted'], 'open')
    return Claim(name, says, rows, **kwargs)

def counted(cell, measure, what, value, is_shown):
    "A comparison without a test: a number that is below its bound, or not"
    row = dict(mean=value, lo=np.nan, hi=np.nan, p=0. if is_shown else 1., n=1, contradicted=not is_shown)
    return dict(zip(cell_keys, cell), measure=measure, what=what, **row)

# One function for each claim

def h1(c):
    rows = []
    for cell in c.all():
        gap = c.values(cell, 'paper rescaled', 'weight_gap').max()
        rows.append(counted(cell, 'weight_gap', 'largest difference of a weight', gap, gap <= 1e-5))
    return claim('H1', 'exact(eps) and paper(eps·N/(N−1)) train the same model', rows)

exact_or_paper = 'exact 0.1', 'paper 0.1'

def h2(c):
    what = 'exact .1 − paper .1'
    rows = [same(cell, 'accuracy', what, c.diff(cell, *exact_or_paper, 'accuracy'), margin=.005) for cell in c.all()]
    few = c.all(('breast_cancer', 'yeast'))
    rows += [differs(cell, 'nll', what, c.diff(cell, *exact_or_paper, 'nll')) for cell in few]
    return claim('H2', 'exact and paper at eps=.1: other probabilities for few classes, the same decisions', rows)

def h3(c):
    what = 'exact .1 − paper .1'
    rows = [same(cell, 'nll_t', what, c.diff(cell, *exact_or_paper, 'nll_t'), margin=.01) for cell in c.all()]
    return claim('H3', 'that difference is one of temperature', rows)

found_eps = 'forward eps_find', 'exact eps_find'
heavy_noise = 'symmetric 20', 'symmetric 30'

def h4a(c):
    rows,what = [],'forward − exact, both by eps_find'
    for cell in c.all(noise=heavy_noise):
        rows += [lower(cell, m, what, c.diff(cell, *found_eps, m)) for m in ('nll', 'ece')]
    what = 'exact − forward, both by eps_find'
    for cell in c.all(noise=('none',)):
        rows.append(no_worse(cell, 'nll', what, -c.diff(cell, *found_eps, 'nll'), margin=.01))
    says = 'forward gives better probabilities of the clean class than smoothing, and costs nothing on clean labels'
    return claim('H4a', says, rows)

def h4b(c):
    what = 'forward − exact, both by eps_find'
    rows = [higher(cell, 'accuracy', what, c.diff(cell, *found_eps, 'accuracy')) for cell in c.all(noise=heavy_noise)]
    return claim('H4b', 'forward gives better decisions than smoothing', rows)

def hindsight(c, cell, mode, column='accuracy', beyond=()):
    "The arm whose eps is best in hindsight, by the mean over seeds. `beyond`: values that `eps_find` does not try"
    tried = ['hard', *(f'{mode} {e}' for e in (*grid[1:], *beyond))]
    arms = [o for o in tried if o in c.arms(cell)]
    means = [c.values(cell, o, column).mean() for o in arms]
    return arms[int(np.nanargmax(means))]

def each_by(c, cell, mode, column='valid_accuracy', beyond=()):
    "The arm that each seed would choose by a score on its observed validation labels; the smaller eps of equal ones"
    tried = ['hard', *(f'{mode} {e}' for e in (*grid[1:], *beyond))]
    arms = [o for o in tried if o in c.arms(cell)]
    return pd.DataFrame({o: c.values(cell, o, column) for o in arms}).idxmax(axis=1)

def of_each(c, cell, arms, column):
    "The column's values where each seed has an arm of its own"
    return pd.Series([c.values(cell, arm, column)[seed] for seed,arm in arms.items()], arms.index)

def h5(c, name='H5', forward='forward eps_find'):
    rows = []
    for cell in c.all():
        if forward not in c.arms(cell): continue
        for mode,found in dict(forward=forward, exact='exact eps_find').items():
            gain = c.diff(cell, found, hindsight(c, cell, mode), 'accuracy')
            how = 'one training' if found == 'forward one' else 'eps_find'
            rows.append(no_worse(cell, 'accuracy', f'{mode}: {how} − best in hindsight', gain, margin=.01))
    return claim(name, 'eps can be found without a clean label: its regret is below 1 point of accuracy', rows)

def h6(c, name='H6', by_matrix='forward noise_matrix', by_eps='forward eps_find'):
    rows = []
    for cell in c.all(noise=('asymmetric',)):
        if by_matrix not in c.arms(cell): continue
        what = 'noise_matrix − symmetric forward ' + ('by one training' if by_eps == 'forward one' else 'by eps_find')
        rows.append(higher(cell, 'accuracy', what, c.diff(cell, by_matrix, by_eps, 'accuracy')))
        rows.append(lower(cell, 'nll', what, c.diff(cell, by_matrix, by_eps, 'nll')))
    says = 'a matrix estimated on the validation set beats symmetric forward where noise is asymmetric'
    return claim(name, says, rows)

def h7(c):
    rows = []
    for cell in c.all(('snippets',)):
        others = [o for o in c.arms(cell) if o not in ('votes', *later)]
        rows += [lower(cell, 'nll_votes', f'votes − {o}', c.diff(cell, 'votes', o, 'nll_votes')) for o in others]
        pair,what = ('forward true eps', 'hard'),'forward on one vote − hard'
        rows += [higher(cell, m, what, c.diff(cell, *pair, m)) for m in ('accuracy', 'nll')]
    says = 'where people disagree, training on their votes is best; forward on one vote gains accuracy and loses NLL'
    return claim('H7', says, rows, refutes=('contradicted',))

def h8(c):
    rows = []
    for cell in c.all():
        if c.diff(cell, 'exact 0.1', 'hard', 'accuracy').mean() <= 0: continue
        rows.append(higher(cell, 'aurc', 'exact .1 − hard', c.diff(cell, 'exact 0.1', 'hard', 'aurc')))
        mended = c.diff(cell, 'exact 0.1', 'hard', 'aurc_t', 'aurc')
        rows.append(higher(cell, 'aurc_t', 'exact .1 after temperature − hard', mended))
    says = 'smoothing harms selective prediction where it helps accuracy, and a temperature does not change that'
    return claim('H8', says, rows)

def found(c, cell, arm, column): return c.values(cell, arm, column).fillna(0) # the precision of nothing found

def h9(c, name='H9', issues='issues 2 rounds', forward='forward true eps'):
    rows = []
    for cell in c.all(noise=('symmetric 10', 'symmetric 20', 'symmetric 30', 'asymmetric')):
        if not {'cleanlab prune', issues} <= set(c.arms(cell)): continue
        rounds = '2 rounds' if issues == 'issues 2 rounds' else '1 round'
        pair,what = (issues, 'cleanlab prune'),f'label_issues, {rounds} − cleanlab'
        for m in ('precision', 'recall'):
            rows.append(higher(cell, m, what, found(c, cell, pair[0], m)-found(c, cell, pair[1], m)))
        if cell[2] != 'long': continue
        rows.append(no_worse(cell, 'accuracy', what, c.diff(cell, *pair, 'accuracy'), margin=.005))
        alone = c.diff(cell, forward, 'cleanlab prune', 'accuracy')
        rows.append(no_worse(cell, 'accuracy', 'forward alone − cleanlab', alone, margin=.03))
        cost = c.values(cell, forward, 'seconds').mean()/c.values(cell, 'cleanlab prune', 'seconds').mean()
        rows.append(counted(cell, 'seconds', 'forward alone / cleanlab', cost, cost <= .2))
    says = 'label_issues finds wrong labels better than cleanlab; what is trained on the rest is no worse'
    return claim(name, says, rows)

again = (partial(h5, name='H5 again', forward='forward one'),
         partial(h6, name='H6 again', by_matrix='forward valid T', by_eps='forward one'),
         partial(h9, name='H9 again', issues='issues even', forward='forward one'))
claims = h1, h2, h3, h4a, h4b, h5, h6, h7, h8, h9, *again

def judge(
    table:pd.DataFrame # `results.csv`
) -> dict: # name -> `Claim`
    "All claims"
    c = Cells(table)
    return {o.name: o for o in (f(c) for f in claims)}

def report(table):
    "Claims in words, for the terminal"
    lines = [f"{len(table)} runs, {table.failed.notna().sum()} of them failed"]
    for o in judge(table).values():
        counts = ', '.join(f'{n} {k}' for k,n in o.counts().items())
        lines.append(f"{o.name} {o.word}: {o.says} ({counts or 'no such cell'})")
    return '\n'.join(lines)
