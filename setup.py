"Hands settings.ini's facts to setuptools; setup.cfg says the rest."
from configparser import ConfigParser
from setuptools import setup

ini = ConfigParser()
ini.read('settings.ini', encoding='utf-8')
s = ini['DEFAULT']
setup(name=s['lib_name'], description=s['description'], author=s['author'], license_expression=s['license'],
      keywords=s['keywords'].split(), python_requires=f">={s['min_python']}", install_requires=s['requirements'].split(),
      extras_require={'dev': s['dev_requirements'].split(), 'bench': s['bench_requirements'].split(),
                      'docs': s['docs_requirements'].split()})
