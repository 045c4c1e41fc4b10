"The results of the study as tables, for the page"
import numpy as np
import pandas as pd
from .pictures import data_order, noise_order, ordered, units
from .statistics import t_test

marks = dict(shown='✓', open='·', contradicted='✗')

def verdicts(judged):
    "The verdict on each claim, and how many of its comparisons are shown, open, contradicted"
    counts = [{k: o.counts().get(k, 0) for k in marks} for o in judged.values()]
    rows = [dict(claim=o.says, verdict=o.word, **n) for o,n in zip(judged.values(), counts)]
    return pd.DataFrame(rows, judged)

def verdict(claim):
    "The verdict on one claim, with its counts"
    n = claim.counts()
    print(f"{claim.name} {claim.word}: {', '.join(f'{n.get(k, 0)} {k}' for k in marks)}")

def cell_text(r, scale):
    if np.isnan(r.lo): return f"{r['mean']*scale:.2g} {marks[r.result]}"
    digits = 1 if scale == 100 else 3
    return f"{r['mean']*scale:+.{digits}f} [{r.lo*scale:+.{digits}f}, {r.hi*scale:+.{digits}f}] {marks[r.result]}"

def numbers(claim, measure, what=None):
    "Mean difference, 95% interval and result: ✓ shown, · open, ✗ contradicted"
    part = claim.rows[claim.rows.measure == measure]
    if part.empty: return f'{claim.name}, {measure}: nothing of it was run'
    if what is None: what = part.what.iloc[0]
    part = part[part.what == what]
    label,scale = units[measure]
    text = part.assign(text=[cell_text(r, scale) for _,r in part.iterrows()])
    text = text.pivot(index=['data', 'regime'], columns='noise', values='text')
    rows = [(d, r) for d in ordered(part, data_order, 'data') for r in ('short', 'long')]
    text = text.reindex([o for o in rows if o in text.index])
    text = text[ordered(part, noise_order, 'noise')].fillna('')
    text.columns.name = f'{what} ({label})'
    return text

guide_arms = ['hard', 'exact 0.1', 'exact eps_find', 'forward one', 'forward valid T', 'forward oof T', 'issues even',
              'issues by class', 'cleanlab prune']

def best_marked(values, form, best):
    "Values as text, the best with a star"
    return [form.format(v) + (' *' if v == best else '') for v in values]

def guide(table, noise, regime='long', names=data_order[:3], arms=guide_arms):
    "Means over data sets and seeds of what needs no clean label; a star at the best. Cost: in trainings of `hard`"
    part = table[(table.noise == noise) & (table.regime == regime) & table.data.isin(names) & table.arm.isin(arms)]
    m = part.groupby('arm')[['accuracy', 'nll', 'ece', 'seconds']].mean()
    m = m.reindex([o for o in arms if o in m.index])
    res = pd.DataFrame({'accuracy': best_marked(m.accuracy, '{:.1%}', m.accuracy.max()),
                        'NLL': best_marked(m.nll, '{:.3f}', m.nll.min()),
                        'ECE': best_marked(m.ece, '{:.1%}', m.ece.min()),
                        'cost': [f'{o:.1f}' for o in m.seconds/m.seconds['hard']]}, m.index)
    res.columns.name = f'{noise}, {regime} fit'
    return res

def beside_hard(table, data, noise, regime, measures=('accuracy', 'nll', 'brier', 'ece', 'nll_t', 'aurc')):
    "All arms of a cell: means over the seeds, and differences from `hard` with their 95% intervals"
    part = table[(table.data == data) & (table.noise == noise) & (table.regime == regime)]
    values = part.pivot(index='seed', columns='arm', values=list(measures))
    res = {}
    for m in measures:
        label,scale = units[m]
        diff = {arm: t_test(x-values[m]['hard']) for arm,x in values[m].items()}
        digits = 1 if scale == 100 else 3
        interval = {k: f'{d.mean*scale:+.{digits}f} [{d.lo*scale:+.{digits}f}, {d.hi*scale:+.{digits}f}]'
                    for k,d in diff.items()}
        res[label] = interval | {'hard': f"{values[m]['hard'].mean()*scale:.{digits}f}"}
    names = ['hard', *(o for o in values[measures[0]] if o != 'hard')]
    return pd.DataFrame(res).loc[names].rename_axis(columns=f'{data}, {noise}, {regime} fit: minus hard')

# The study together with the suite of `issues.csv`

in_suite = {'hard': 'hard', 'forward one': 'forward one', 'forward oof T': 'forward matrix', 'issues even': 'even',
            'issues by class': 'by class', 'cleanlab prune': 'cleanlab'} # the same arms under two names
shared_noises = {'none': 'none wrong', 'symmetric 20': '20% wrong', 'asymmetric': '30% by class',
                 'one vote': 'people disagree'}
trainings = {'hard': 1, 'forward one': 2, **dict.fromkeys(list(in_suite)[2:], 6)}

def with_suite(table, suite):
    """Means over the seeds, and differences from `hard`, for each data set of the study and the suite: the arms and
    noises that both have, where all these arms were run"""
    names = {v: k for k,v in in_suite.items()} | {'by class 30': 'asymmetric'}
    suite = suite[suite.arm.isin(list(in_suite.values())) & ~suite.data.str.contains(' rare ')]
    rows = pd.concat([table, suite.replace({'arm': names, 'noise': names})])
    rows = rows[rows.arm.isin(list(in_suite)) & rows.noise.isin(list(shared_noises))]
    means = rows.groupby(['noise', 'regime', 'data', 'arm'])[['accuracy', 'nll']].mean()
    means = means.groupby(level=[0, 1, 2]).filter(lambda cell: len(cell) == len(in_suite))
    return means.join(means-means.xs('hard', level='arm'), rsuffix='_gain').reset_index()

def overall(means, measure='accuracy', form='{:.1%}'):
    "Means over the data sets, each of the same weight: a row for each arm, a column for each fit and noise"
    res = means.pivot_table(index='arm', columns=['regime', 'noise'], values=measure).map(form.format)
    n = means.groupby(['regime', 'noise']).data.nunique()
    columns = [(r, o) for r in ('short', 'long') for o in shared_noises if (r, o) in res]
    res = res.reindex(index=[o for o in in_suite if o in res.index], columns=columns)
    res.insert(0, ('', 'trainings'), [trainings[o] for o in res.index])
    res.columns = pd.MultiIndex.from_tuples([(r and f'{r} fit', o if not r else f'{shared_noises[o]} ({n[r, o]})')
                                             for r,o in res.columns])
    return res

def worse_than_hard(means, measure='accuracy', by=-.005):
    "In how many data sets an arm is worse than `hard` by more than `by`: negative for accuracy, positive for NLL"
    gain = means[f'{measure}_gain']
    worse = gain < by if by < 0 else gain > by
    return overall(means.assign(worse=worse.astype(float)*means.groupby(['regime', 'noise']).data.transform('nunique')),
                   'worse', '{:.0f}')
