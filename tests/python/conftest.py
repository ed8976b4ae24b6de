# SPDX-License-Identifier: MIT
pytest_plugins = ["zqcow2_pytest", "pytester"]
