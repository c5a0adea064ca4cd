from setuptools import setup

NODES = ("sim", "world_model", "action_prior", "mpc", "uncertainty_monitor", "reasoning", "recorder")

setup(
    name="worldpilot_nodes",
    version="0.1.0",
    description="Thin lifecycle nodes around the worldpilot Python package",
    maintainer="worldpilot maintainers",
    maintainer_email="maintainers@worldpilot.dev",
    license="Apache-2.0",
    packages=["worldpilot_nodes"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/worldpilot_nodes"]),
        ("share/worldpilot_nodes", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    entry_points={"console_scripts": [f"{node} = worldpilot_nodes.{node}:main" for node in NODES]},
)
