"The study's pictures: differences with their intervals, in one panel for each data set, on shared axes"
import matplotlib.pyplot as plt
import numpy as np
from fastai_labelsmooth.interpret.plots import palette

colors = dict(shown=palette.right, open=palette.measured, contradicted=palette.wrong)
data_order = ['breast_cancer', 'wine', 'digits', 'mnist', 'snippets', 'yeast']
noise_names = {'none': 'none', 'symmetric 10': '10%', 'symmetric 20': '20%', 'symmetric 30': '30%',
               'asymmetric': 'asym.', 'one vote': 'one vote'}
noise_order = list(noise_names)
units = dict(accuracy=('accuracy, points', 100), nll=('NLL, nats', 1), nll_t=('NLL after temperature, nats', 1),
             brier=('Brier score, points', 100),
             ece=('ECE, points', 100), aurc=('AURC, points', 100), aurc_t=('AURC after temperature, points', 100),
             precision=('precision, points', 100), recall=('recall, points', 100),
             nll_votes=('NLL against the votes, nats', 1), seconds=('share of the time', 1), weight_gap=('weight', 1))

def ordered(rows, names, key): return [o for o in names if o in set(rows[key])]

def points(ax, rows, y, scale):
    "Means and 95% intervals, coloured by what was shown"
    for (_,r),at in zip(rows.iterrows(), y):
        ax.plot([r.lo*scale, r.hi*scale], [at, at], color=colors[r.result], lw=1.8, solid_capstyle='butt')
        ax.plot(r['mean']*scale, at, 'o', color=colors[r.result], ms=4)

def limits(rows, scale, margin):
    "Limits of the x axis: all means, and most of the intervals"
    ends = np.r_[rows.lo.quantile([.1, .9]), rows.hi.quantile([.1, .9]), rows['mean'], 0, margin, -margin]*scale
    pad = .05*(np.nanmax(ends)-np.nanmin(ends)) or 1
    return np.nanmin(ends)-pad,np.nanmax(ends)+pad

def lines_of(rows):
    "The noises and fits that have rows, in order"
    lines = [(noise, regime) for noise in ordered(rows, noise_order, 'noise') for regime in ('short', 'long')]
    return [o for o in lines if o in set(zip(rows.noise, rows.regime))]

def forest(claim, margins=None):
    "A claim's comparisons: a row of panels for each question, a panel for each data set, a line for each noise and fit"
    margins = margins or {}
    tested = claim.rows[claim.rows.lo.notna()]
    if tested.empty: return # nothing of it was run
    questions = list(tested.groupby(['measure', 'what'], sort=False))
    names = ordered(tested, data_order, 'data')
    heights = [.19*len(lines_of(part))+.8 for _,part in questions]
    fig,axes = plt.subplots(len(questions), len(names), figsize=(2.1*len(names)+1.7, sum(heights)+.3), sharex='row',
                            sharey='row', squeeze=False, height_ratios=heights, layout='constrained')
    for ax,name in zip(axes[0], names): ax.set_title(name, fontsize=9)
    for ((measure, what), part),row in zip(questions, axes):
        label,scale = units[measure]
        lines = lines_of(part)
        margin = margins.get((measure, what), margins.get(measure, 0))
        for name,ax in zip(names, row):
            if margin: ax.axvspan(-margin*scale, margin*scale, color=palette.right, alpha=.1, lw=0)
            ax.axvline(0, color='black', lw=.6)
            own = part[part.data == name]
            points(ax, own, [-lines.index(o) for o in zip(own.noise, own.regime)], scale)
            ax.tick_params(labelsize=8)
            ax.locator_params(axis='x', nbins=4)
        row[0].set_yticks(-np.arange(len(lines)), [' · '.join(o) for o in lines])
        row[0].set(xlim=limits(part, scale, margin), ylim=(-len(lines)+.4, .6))
        row[len(row)//2].set_xlabel(f'{what}: {label}', fontsize=9)
    fig.legend(handles=legend(), loc='outside upper center', ncols=3, fontsize=8, frameon=False)

def legend(): return [plt.Line2D([], [], color=c, marker='o', ms=4, label=k) for k,c in colors.items()]

def ladder(claim, regime='long'):
    "The comparisons of one data set: a line each, a panel for each measure"
    tested = claim.rows[claim.rows.lo.notna() & (claim.rows.regime == regime)]
    measures = list(tested.measure.unique())
    heights = [sum(tested.measure == m) for m in measures]
    size = (8, .2*sum(heights)+.9*len(measures))
    fig,axes = plt.subplots(len(measures), 1, figsize=size, height_ratios=heights, squeeze=False, layout='constrained')
    for measure,ax in zip(measures, axes[:, 0]):
        label,scale = units[measure]
        part = tested[tested.measure == measure]
        points(ax, part, -np.arange(len(part)), scale)
        ax.axvline(0, color='black', lw=.6)
        ax.set(yticks=-np.arange(len(part)), yticklabels=part.what, xlabel=label, ylim=(-len(part)+.4, .6))
        ax.tick_params(labelsize=8)
    fig.legend(handles=legend(), loc='outside upper center', ncols=3, fontsize=8, frameon=False)

arm_style = {'hard': (palette.hard, 'o-'), 'exact 0.1': (palette.smoothed, 's-'),
             'forward one': (palette.forward, 'o-'), 'forward oof T': ('#E69F00', '^-'),
             'issues even': ('#009E73', 'D-'), 'cleanlab prune': ('#CC79A7', 'v--')}
arm_names = {'hard': 'hard labels', 'exact 0.1': 'label smoothing, "exact" 0.1',
             'forward one': '"forward", eps_find (2 trainings)', 'forward oof T': 'Forward, out-of-fold matrix (6)',
             'issues even': 'label_issues dropped (6)', 'cleanlab prune': "cleanlab's issues dropped (6)"}

def by_noise(table, regime, names=data_order[:3], noises=noise_order, arms=tuple(arm_style)):
    "Means over the seeds against the noise: a row for each data set, a column for each measure"
    measures = dict(accuracy='accuracy', nll='NLL', ece='ECE')
    part = table[(table.regime == regime) & table.arm.isin(arms) & table.noise.isin(noises)]
    names = [o for o in names if o in set(part.data)]
    noises = ordered(part[part.data.isin(names)], noises, 'noise')
    fig,axes = plt.subplots(len(names), len(measures), figsize=(3*len(measures), 2*len(names)+.8), sharex=True,
                            sharey='col', squeeze=False, layout='constrained')
    for ax,label in zip(axes[0], measures.values()): ax.set_title(label, fontsize=9)
    for name,row in zip(names, axes):
        for measure,ax in zip(measures, row):
            means = part[part.data == name].groupby(['arm', 'noise'])[measure].mean()
            for arm in arms:
                if arm not in means: continue
                color,style = arm_style[arm]
                ax.plot([means[arm].get(o) for o in noises], style, color=color, label=arm_names[arm], ms=4, lw=1.3)
            ax.tick_params(labelsize=8)
            ax.set_xticks(range(len(noises)), [noise_names[o] for o in noises])
        row[0].set_ylabel(name)
    axes[-1, 1].set_xlabel('wrong labels', fontsize=9)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside upper center', ncols=3, fontsize=8, frameon=False)

def overview(means, noises=('none', 'symmetric 20', 'asymmetric')):
    "Differences from hard labels in short and long fits: means over the data sets, and each data set as a small dot"
    arms = [o for o in arm_style if o in set(means.arm) and o != 'hard']
    rows = {'accuracy_gain': ('accuracy, points', 100), 'nll_gain': ('NLL, nats (less is better)', 1)}
    fig,axes = plt.subplots(2, 2, figsize=(9, 5), sharex=True, sharey='row', layout='constrained')
    for (column, (label, scale)),row in zip(rows.items(), axes):
        for regime,ax in zip(('short', 'long'), row):
            ax.axhline(0, color=palette.hard, lw=1)
            for k,arm in enumerate(arms):
                color,style = arm_style[arm]
                for x,noise in enumerate(noises):
                    own = means[(means.arm == arm) & (means.regime == regime) & (means.noise == noise)][column]*scale
                    at = x + .17*(k-(len(arms)-1)/2)
                    ax.plot([at]*len(own), own, '.', color=color, alpha=.35, ms=3)
                    ax.plot(at, own.mean(), style[0], color=color, ms=7, label=arm_names[arm] if not x else None)
            ax.tick_params(labelsize=8)
        used = means[means.noise.isin(noises) & means.arm.isin(arms)][column]*scale
        row[0].set(ylabel=f'minus hard labels:\n{label}', ylim=used.quantile([.02, .98]))
    for regime,ax in zip(('short', 'long'), axes[0]): ax.set_title(f'{regime} fit', fontsize=9)
    names = {'none': 'none wrong', 'symmetric 20': '20% wrong', 'asymmetric': '30% by class'}
    axes[1, 0].set_xticks(range(len(noises)), [names[o] for o in noises])
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside upper center', ncols=2, fontsize=8, frameon=False)
