"The results in `issues.csv` as tables, and whether each claim of ISSUES.md holds"
import pandas as pd
from .issues_data import noises
from .tables import best_marked

arms = ['hard', 'forward one', 'forward folds', 'forward matrix', 'even', 'even relabelled', 'even by hand',
        'random by hand', 'by class', 'cleanlab', 'cleanlab twice', 'argmax twice']
lists = ['even', 'by class', 'cleanlab', 'cleanlab self', 'argmax', 'cleanlab twice', 'argmax twice']
symmetric = list(noises[1:4])
names = {'hard': 'nothing done', 'forward one': '"forward", eps by one training',
         'forward folds': '"forward", share of the folds', 'forward matrix': 'Forward, out-of-fold matrix',
         'even': 'label_issues()', 'even relabelled': 'label_issues(), its suggestions taken',
         'even by hand': 'label_issues(), corrected by hand', 'random by hand': 'as many at random, by hand',
         'by class': 'label_issues(by_class=True)', 'cleanlab': 'cleanlab', 'argmax': 'argmax is not the label',
         'cleanlab twice': 'cleanlab, second round', 'argmax twice': 'argmax, second round'} # for the page

def is_rare(table): return table.data.str.contains(' rare ')

def means(table, value, of, columns=noises):
    "Arms in rows, noises in columns: means over data sets and seeds"
    part = table[table.arm.isin(of) & ~is_rare(table)]
    res = part.pivot_table(index='arm', columns='noise', values=value)
    return res.reindex(index=[o for o in of if o in res.index], columns=[o for o in columns if o in res])

def truth(table):
    "The true share of each row with an interval"
    return table[table.lo.notna() & table.wrong.notna() & ~is_rare(table)]

def coverage(table):
    part = truth(table)
    held = (part.lo-1e-9 <= part.wrong) & (part.wrong <= part.hi)
    return part.assign(held=held).pivot_table(index='arm', columns='noise', values='held').reindex(columns=noises)

def rare_lost(table):
    "The share that is named of a class with few items, all rightly labelled: mean over seeds"
    part = table[is_rare(table)]
    res = part.pivot_table(index=['noise', 'data'], columns='arm', values='lost')
    return res[[o for o in lists if o in res]]

says = dict(
    I1='evenly wrong: label_issues() finds them better than cleanlab',
    I2='wrong by class: label_issues(by_class=True) is about as good as cleanlab',
    I3='none wrong: label_issues() names at most a quarter of the right labels that cleanlab names',
    I4='the better ranking of the two is as good as cleanlab\'s, under each noise',
    I5='of a rare class of right labels, a third at most is named',
    I6='the share is right where labels are wrong evenly, and its interval holds the truth',
    I7='one training is enough to find that share',
    I8='"forward" with this eps is not worse than doing nothing, under each noise',
    I9='dropping what a list names is not better than "forward"',
    I10='a second round is not worth its price',
    I11='I8 holds in long fits too, once the model is calibrated through the noise')

def verdicts(table):
    "The claims of ISSUES.md in a word, from the held-out data sets"
    judged = {name: holds for name,holds,_ in claims(table[table.group == 'held-out'])}
    words = ['holds' if o else 'refuted' for o in judged.values()]
    return pd.DataFrame({'claim': [says[o] for o in judged], 'verdict': words}, judged)

def claims(table):
    "(claim, whether it holds, numbers) for the short fits, I11 for the long ones"
    t,long = table[table.regime == 'short'],table[table.regime == 'long']
    f1,ap,false = (means(t, o, lists) for o in ('f1', 'ap', 'false'))
    share,acc,nll = means(t, 'share', ['even', 'forward one']),means(t, 'accuracy', arms),means(t, 'nll', arms)
    def row(name, holds, *values): return name,bool(holds),'; '.join(map(str, values))
    def near(arm):
        expected = pd.Series([0, .1, .2, .4], ['none', *symmetric])
        return (share.loc[arm, expected.index]-expected).abs()
    gap = f1.loc['even', symmetric]-f1.loc['cleanlab', symmetric]
    yield row('I1', (gap >= 0).all(), 'F1 even - cleanlab', gap.round(3).to_dict())
    gap = f1.at['by class', 'by class 30']-f1.at['cleanlab', 'by class 30']
    yield row('I2', gap >= -.02, f'F1 by class - cleanlab {gap:.3f}')
    ours,theirs = false.at['even', 'none'],false.at['cleanlab', 'none']
    yield row('I3', ours <= theirs/4, f'even names {ours:.4f} of right labels, cleanlab {theirs:.4f}')
    gap = ap.loc[['even', 'by class']].max()-ap.loc[['cleanlab', 'cleanlab self']].max()
    yield row('I4', (gap[list(noises[1:])] >= -.005).all(), 'AP', gap.round(3).to_dict())
    lost = rare_lost(t)['even']
    yield row('I5', (lost <= 1/3+1e-9).all(), f'lost at most {lost.max():.2f}', lost.round(2).to_dict())
    held = coverage(t[t.arm == 'even']).loc['even', ['none', *symmetric]]
    holds = (near('even') <= .03).all() and (held >= .85).all()
    yield row('I6', holds, 'share off by', near('even').round(3).to_dict(), 'coverage', held.round(2).to_dict())
    yield row('I7', (near('forward one') <= .03).all(), 'eps off by', near('forward one').round(3).to_dict())
    da,dn = acc.loc['forward one']-acc.loc['hard'],nll.loc['forward one']-nll.loc['hard']
    yield row('I8', (da >= -.002).all() and (dn <= .01).all(), 'accuracy', da.round(3).to_dict(), 'NLL',
              dn.round(3).to_dict())
    dropped = acc.loc[['even', 'cleanlab']]-acc.loc['forward one']
    yield row('I9', ((dropped > .002).sum(axis=1) <= 3).all(), dropped.round(3).to_dict('index'))
    twice = acc.loc[['cleanlab twice', 'argmax twice']]-acc.loc['forward one']
    yield row('I10', ((twice > .002).sum(axis=1) <= 3).all(), twice.round(3).to_dict('index'))
    if len(long):
        acc,nll = means(long, 'accuracy', arms),means(long, 'nll_t', arms)
        da,dn = acc.loc['forward one']-acc.loc['hard'],nll.loc['forward one']-nll.loc['hard']
        yield row('I11', (da >= -.002).all() and (dn <= .01).all(), 'accuracy', da.round(3).to_dict(),
                  'NLL after the temperature', dn.round(3).to_dict())

def report(table, group='held-out'):
    "All of it as text"
    table = table[table.group == group]
    if table.empty: return f'no rows of {group} yet'
    res = [f'{group}: {table.data.nunique()} data sets']
    for regime in ('short', 'long'):
        t = table[table.regime == regime]
        if t[~is_rare(t)].empty: continue
        res.append(f'\n== {regime} fits')
        for value,of in (('f1', lists), ('precision_50', lists), ('ap', lists), ('false', lists), ('accuracy', arms),
                         ('rare_accuracy', arms), ('nll', arms), ('nll_t', arms), ('nll_both', arms),
                         ('trainings', arms)):
            res.append(f'{value}\n{means(t, value, of).round(3).to_string()}')
        res.append(f"share\n{means(t, 'share', ['even', 'by class', 'forward one']).round(3).to_string()}")
        res.append(f"true share\n{means(t, 'wrong', ['even']).round(3).to_string()}")
        res.append(f'coverage of the interval\n{coverage(t).round(2).to_string()}')
        if is_rare(t).any(): res.append(f'lost of a rare class\n{rare_lost(t).round(2).to_string()}')
    if set(lists) <= set(table.arm):
        try: res += [f"{name} {'holds' if holds else 'REFUTED'}: {numbers}" for name,holds,numbers in claims(table)]
        except KeyError as e: res.append(f'not all of it is run yet: {e}')
    return '\n'.join(res)

# For the page

def found(table):
    "Lists: F1 by noise, and the share of right labels that is named where none is wrong"
    of = [o for o in lists if o != 'cleanlab self']
    res = means(table, 'f1', of).map('{:.2f}'.format)
    res.insert(0, 'trainings', [10 if 'twice' in o else 5 for o in res.index])
    res['right ones named, none wrong'] = means(table, 'false', of)['none'].map('{:.1%}'.format)
    return res.rename(names).rename_axis(index=None, columns='F1')

def trained(table, value, form, label):
    "Models: a value by noise, with a star at the best"
    res = means(table, value, arms)
    def marked(o): return best_marked(o, form, o.max() if value == 'accuracy' else o.min())
    res = res.apply(marked)
    res.insert(0, 'trainings', table.groupby('arm').trainings.max().reindex(res.index).astype(int))
    return res.rename(names).rename_axis(index=None, columns=label)
