"""Which findings name a mistake rightly: the codes of `xvla check`, by what was done wrong.

Where two codes stand, both sentences are true of the mistake and lead to the same place.
"""

Codes = tuple[str, ...]

CAMERA_DECLARATION: Codes = ("XV003", "XV004")
COLUMN_DECLARATION: Codes = ("XV005", "XV006")
NOT_FINITE: Codes = ("XV007",)

POSITION_UNIT: Codes = ("XV101", "XV212")
POSITION_UNIT_IN_PART: Codes = ("XV101", "XV212")
POSITION_UNIT_ONE_DIM: Codes = ("XV101", "XV212")
ANGLE_UNIT: Codes = ("XV102",)
ANGLE_UNIT_IN_PART: Codes = ("XV102", "XV206")
JOINT_UNIT: Codes = ("XV103",)
WORKSPACE: Codes = ("XV104", "XV506")
CONSTANT: Codes = ("XV110",)
DEGENERATE: Codes = ("XV111",)
DUPLICATE_DIM: Codes = ("XV112",)
SPIKES: Codes = ("XV113",)

NOT_A_ROTATION: Codes = ("XV201",)
ROT6D_LAYOUT: Codes = ("XV202",)
QUATERNION_ORDER: Codes = ("XV203",)
EULER_ORDER: Codes = ("XV204",)
ROTATION_FORMAT: Codes = ("XV204",)
TRANSPOSED: Codes = ("XV206", "XV215", "XV216")
REFERENCE: Codes = ("XV210",)
AXES: Codes = ("XV211",)
ACTION_IS_STATE: Codes = ("XV213",)
LAG: Codes = ("XV214",)
ACTION_FRAME: Codes = ("XV215", "XV216")
FIELDS_OUT_OF_ORDER: Codes = ("XV010", "XV101", "XV102")
POLARITY: Codes = ("XV220",)
GRIPPER_RANGE: Codes = ("XV221",)
GRIPPER_STILL: Codes = ("XV222", "XV110")

COPIED: Codes = ("XV304",)
DARK: Codes = ("XV301",)
FROZEN: Codes = ("XV303", "XV311")
LATE: Codes = ("XV308",)
MIRRORED: Codes = ("XV307",)
SWAPPED: Codes = ("XV305", "XV306")
UPSIDE_DOWN: Codes = ("XV307",)

RATE_DECLARED: Codes = ("XV002", "XV401")
RATE_RECORDED: Codes = ("XV401",)
JITTER: Codes = ("XV402",)
GAPS: Codes = ("XV403",)
JUMPS: Codes = ("XV403",)
REPEATED: Codes = ("XV404",)
NO_WORDS: Codes = ("XV410",)
EQUAL_WORDS: Codes = ("XV411",)
PLACEHOLDER: Codes = ("XV412",)
IDLE: Codes = ("XV420",)
SHORT: Codes = ("XV421",)
CUT_SHORT: Codes = ("XV110", "XV222")
LEAKAGE: Codes = ("XV422", "XV423")

JOINT_SPACE: Codes = ("XV501",)
