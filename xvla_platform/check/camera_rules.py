"""The words of XV3xx: what can be wrong with a camera, why it matters, and what to change."""

from xvla_platform.check.findings import Rule

RULES = (
    Rule(
        code="XV301",
        slug="camera-dark",
        title="the camera's image is black",
        why="A black view teaches nothing, and a model trained on it has learned to do without that camera.",
        fix="Check the cable, the lens cap and the exposure, then record these episodes again or leave them out.",
    ),
    Rule(
        code="XV302",
        slug="camera-uniform",
        title="the camera's image is one colour",
        why="An image without content comes from a stream that was never filled; the model would train on nothing.",
        fix="Check that the stream was recorded; leave these episodes out, or remove the camera from `cameras`.",
    ),
    Rule(
        code="XV303",
        slug="camera-frozen",
        title="the camera's image stands still while the arm moves",
        why="The same image comes with ever other actions, so the model learns to ignore it.",
        fix="Look at the driver (a full buffer, a lost connection); record these episodes again or leave them out.",
    ),
    Rule(
        code="XV304",
        slug="camera-duplicate",
        title="two cameras show the same images",
        why="One view is missing, and the copy stands where the model expects another viewpoint.",
        fix="Correct the `key` of one camera; if the recording itself holds one view twice, remove one of the two.",
    ),
    Rule(
        code="XV305",
        slug="camera-mount",
        title="the camera is not mounted as declared",
        why="Main and auxiliary views take different paths through the model: the main view is read together with "
        "the instruction. A wrist view in its place loses the scene.",
        fix="Exchange the `key` of the two cameras, or correct `mount`.",
    ),
    Rule(
        code="XV306",
        slug="camera-exchanged",
        title="two cameras are exchanged in some episodes",
        why="The model sees the scene where it expects the wrist, and learns to rely on neither.",
        fix="Exchange the two streams in these episodes of the dataset, or leave the episodes out.",
    ),
    Rule(
        code="XV307",
        slug="camera-mirrored",
        title="the camera's image is mirrored or upside down",
        why="Left and right in the image contradict left and right in the actions and in the instruction; a base "
        "that has only seen plain images transfers badly.",
        fix="Declare how to right it: `cameras: [{name: front, flip: horizontal, ...}]`; the robot's images are then "
        "turned alike.",
    ),
    Rule(
        code="XV308",
        slug="camera-delay",
        title="the camera's images and the recorded numbers are not of the same time",
        why="Each action is learned from an image of another moment; the policy reacts late by that time.",
        fix="Shift the images against the numbers when the dataset is written, or synchronise the clocks.",
        severity="warning",
    ),
    Rule(
        code="XV309",
        slug="camera-channels",
        title="the camera's red and blue are exchanged",
        why="Instructions that name colours point at the wrong objects, and pretrained features see strange images.",
        fix="Declare it: `cameras: [{name: front, channels: bgr, ...}]`.",
    ),
    Rule(
        code="XV310",
        slug="camera-exposure",
        title="most of the camera's image is over-exposed",
        why="White areas carry no detail to act on.",
        fix="Lower exposure or gain, and record these episodes again.",
        severity="warning",
    ),
    Rule(
        code="XV311",
        slug="camera-repeats",
        title="the camera repeats frames",
        why="A camera slower than the recording shows the same image for several ticks while the arm moves on, so "
        "images are up to that many ticks old.",
        fix="Record at the camera's rate, or raise the camera's.",
        severity="warning",
    ),
    Rule(
        code="XV312",
        slug="camera-unrelated",
        title="the camera's image does not follow the arm",
        why="Either the camera does not see the arm, or its images belong to other frames than the numbers do.",
        fix="Look at the contact sheet: is the arm in view, and does each episode's video belong to it?",
        severity="info",
    ),
    Rule(
        code="XV313",
        slug="camera-blurred",
        title="the camera is blurred in some episodes",
        why="Small objects vanish; the model learns these episodes without seeing what it grasps.",
        fix="Clean or focus the lens; leave these episodes out if the objects cannot be told apart.",
        severity="warning",
    ),
    Rule(
        code="XV314",
        slug="camera-main",
        title="the main view is a wrist camera although a fixed one is there",
        why="The main view is read together with the instruction. The base was trained with a view of the scene there.",
        fix="Give `role: main` to the fixed camera, and `role: auxiliary` to the one on the wrist.",
        severity="warning",
    ),
)
