"""The graph of a task for `ros2 launch worldpilot_bringup task.launch.py task:=quadruped`, made from graph.yaml.

`push_t.launch.py` is a link to this file, whose default is that task.
On a robot: `sim:=false image_topic:=/camera/image_raw command_topic:=/servo/delta_twist_cmds`, or `state_topic:=` and
`joint_command_topic:=`.
`autostart:=false` leaves configuring and activating to `ros2 lifecycle set`. `reasoning:=true` adds the language model.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch and launch_ros come with ROS from apt; the pip-only environment that is type-checked lacks them.

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from worldpilot import graph as graphs


def generate_launch_description() -> LaunchDescription:
    """One action a node: a lifecycle node that configures and activates itself, and is started again if it dies."""
    graph = graphs.load(Path(__file__).resolve().parent / "graph.yaml")
    topics = [topic.name for topic in graph.topics.values() if topic.remappable]
    task = LaunchConfiguration("task")
    arguments = [
        DeclareLaunchArgument("task", default_value="push_t", description="whose parameters and model are used"),
        DeclareLaunchArgument("artifact", default_value="", description="model folder; empty: the one shipped"),
        DeclareLaunchArgument("public_key", default_value="", description="PEM of who must have signed the model"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at start"),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the whole graph"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error"),
        DeclareLaunchArgument(
            "params_file",
            default_value=[f"{graph.folder / 'config'}/", task, ".yaml"],
            description="parameters of the nodes; the default is the task's",
        ),
        *(
            DeclareLaunchArgument(f"{name}_topic", default_value=name, description=f"topic of {name}")
            for name in topics
        ),
        *(
            DeclareLaunchArgument(
                node.name, default_value="false" if node.optional else "true", description=f"run {node.name}"
            )
            for node in graph.nodes.values()
        ),
    ]
    nodes = [
        LifecycleNode(
            name=node.name,
            namespace=LaunchConfiguration("namespace"),
            package=node.package,
            executable=node.executable,
            parameters=[
                LaunchConfiguration("params_file"),
                {
                    "task": ParameterValue(task, value_type=str),
                    "artifact": ParameterValue(LaunchConfiguration("artifact"), value_type=str),
                    "public_key": ParameterValue(LaunchConfiguration("public_key"), value_type=str),
                    "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
                },
            ],
            remappings=[(name, LaunchConfiguration(f"{name}_topic")) for name in graph.remappable(node)],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
            respawn=True,
            respawn_delay=node.respawn_delay,
            condition=IfCondition(LaunchConfiguration(node.name)),
        )
        for node in graph.nodes.values()
    ]
    environment = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
        for name, value in graph.environment.items()
    ]
    return LaunchDescription([*arguments, *environment, *nodes])
