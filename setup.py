"Hands settings.ini's facts and README.md to setuptools; setup.cfg says the rest."
import re
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import urljoin
from setuptools import setup

ini = ConfigParser()
ini.read('settings.ini', encoding='utf-8')
s = ini['DEFAULT']

def in_repo(path, kind='blob'): return urljoin(f"{s['git_url']}/{kind}/{s['branch']}/README.md", path)

def with_whole_links(readme):
    "A package index shows the README without the files beside it: its links lead to the repository"
    code,link = r'```.*?```|`[^`]*`',r'(?P<image>!\[[^]]*)?\]\((?P<to>[^)\s]+)'
    def whole(m):
        if not m['to']: return m[0] # code
        return f"{m['image'] or ''}]({in_repo(m['to'], 'raw' if m['image'] else 'blob')}"
    return re.sub(f'{code}|{link}', whole, readme, flags=re.S)

setup(name=s['lib_name'], description=s['description'], author=s['author'], license_expression=s['license'],
      keywords=s['keywords'].split(), python_requires=f">={s['min_python']}",
      install_requires=s['requirements'].split(),
      extras_require={o: s[f'{o}_requirements'].split() for o in ('dev', 'widgets', 'bench', 'docs')},
      long_description=with_whole_links(Path('README.md').read_text(encoding='utf-8')),
      project_urls={'Repository': s['git_url'], 'Documentation': s['doc_host']+s['doc_baseurl'],
                    'Issues': f"{s['git_url']}/issues", 'Changelog': in_repo('CHANGELOG.md')})
