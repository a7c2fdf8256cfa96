"""The settings of a site on MariaDB, with PyMySQL unless mysqlclient is installed."""

from importlib.util import find_spec

import pymysql

if find_spec("MySQLdb") is None:
    pymysql.install_as_MySQLdb()

from project.settings import *  # noqa: F403
