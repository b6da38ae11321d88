"""What the bundled prior is taught: names, the catalogue model that shows each, colours, and the held-out pairs.

A catalogue key is ``<library>#<number>`` of the Debian package ``sweethome3d-furniture``.
"""

from __future__ import annotations

import hashlib

_LIBRARIES = {"A": "BlendSwap-CC-0", "B": "BlendSwap-CC-BY", "K": "KatorLegaz", "R": "Reallusion", "S": "Scopia"}

_MODELS = """
armchair A86; office chair K72; chair B24; deck chair A65; high chair S126; stool B28; bar stool A42; sofa A132;
corner sofa A21; bench K16; table S39; round table A27; coffee table S33; pool table A33; foosball table A46;
ping pong table B57; desk A75; bed B77; bunk bed B10; crib S79; cradle A87; wardrobe B63; bookcase K80; dresser B75;
nightstand B5; filing cabinet K74; locker A98; safe B53; lamp B98; table lamp A15; desk lamp S54; lantern A155;
camping lantern B126; chandelier A121; candle S358; flashlight K37; fireplace S165; rocking horse A8; grand piano A30;
piano B50; keyboard K54; electric guitar A76; xylophone B110; teddy bear A51; doll S197; doll house S196; horse B97;
dog S162; bulldog B89; cat S161; siamese cat B100; rabbit S205; chicken A94; deer A14; man K64; woman R1;
truck S212; semi truck B122; van S251; bus S247; car K59; beetle car K69; sports car S250; suv S249; forklift A119;
motorcycle S173; scooter S248; kick scooter S182; bicycle S246; tricycle S189; biplane A10; boat B133; toy train B106;
vintage car B15; skateboard S297; wheelchair B66; stroller S187; wheelbarrow A138; lawn mower S204; hamburger B96;
hot dog A147; cupcake A142; birthday cake S128; roasted chicken S206; bread A90; steak S392; french fries S370;
fruit bowl S355; salad bowl S356; milk carton A53; beer mug A89; coffee mug K28; cup of coffee A9; paper cup B21;
teapot S123; vase S44; jar S14; wine bottle K87; beer bottle B6; wine glass B27; cocktail glass B90; cooking pot B43;
bowl S13; plate K34; basket S183; basin S337; trash can K18; recycling bin K65; cardboard box S180; crate A73;
barrel A72; shipping container A130; gift B26; mailbox A25; fire hydrant K79; fire extinguisher A82; traffic cone S262;
stone lantern A150; fountain B113; dog house S178; tent S357; shed S295; swimming pool S169; inflatable pool S171;
hot tub S159; trampoline S188; playground S7; swing A110; seesaw A129; drill S263; hammer S264; scissors A11;
headphones A69; camera S146; laptop B99; computer K76; television A22; radio B52; telephone S120; smartphone A70;
game controller S303; printer S138; speaker A43; microwave B48; toaster S395; blender B32; stand mixer A19;
coffee machine A111; kettle B8; refrigerator K29; washing machine S131; oven A28; stove B44; kitchen scale B76;
sink A62; toilet A57; bathtub S374; umbrella A80; parasol A60; backpack B2; suitcase B103; handbag A120; briefcase A106;
hat S238; cap S237; helmet S239; sneakers S147; boots A141; high heels S150; slippers A85; sunglasses B104; watch S253;
soccer ball B71; basketball A78; bean bag S145; rubik's cube B69; chessboard B74; dartboard S155; punching bag S181;
basketball hoop S152; pinball machine S158; tennis racket A135; treadmill B107; exercise bike S167; tulips B108;
lilies B109; orchid A124; cactus A107; bonsai tree S192; potted plant S36; succulent B102; palm tree S379;
christmas tree S130; pine tree S382; cherry tree S381; maple tree S375; hedge S347; snowman B72; rock A162;
firewood S160; aquarium S191; cuckoo clock A96; book B9; stapler K90; ladder S185; spiral staircase A133; faucet S179;
spray bottle K23; soap dispenser S108; roll of tape S258; air conditioner S135; hammock S373
"""

MODELS: dict[str, str] = {}
for _entry in _MODELS.replace("\n", " ").split(";"):
    _name, _key = _entry.strip().rsplit(" ", 1)
    MODELS[_name] = f"{_LIBRARIES[_key[0]]}#{_key[1:]}"

# Other words for the same thing, used in one caption out of six.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "armchair": ("easy chair",),
    "sofa": ("couch",),
    "dresser": ("chest of drawers",),
    "nightstand": ("bedside table",),
    "bookcase": ("bookshelf",),
    "lamp": ("bedside lamp",),
    "refrigerator": ("fridge",),
    "television": ("tv",),
    "motorcycle": ("motorbike",),
    "scooter": ("vespa",),
    "bicycle": ("bike",),
    "biplane": ("airplane", "plane"),
    "boat": ("rowboat",),
    "car": ("sedan",),
    "stroller": ("baby carriage",),
    "hamburger": ("burger", "cheeseburger"),
    "gift": ("present",),
    "trash can": ("garbage bin",),
    "cardboard box": ("box",),
    "telephone": ("phone",),
    "computer": ("pc",),
    "game controller": ("gamepad",),
    "stove": ("cooker",),
    "sneakers": ("shoes", "trainers"),
    "rabbit": ("bunny",),
    "dog": ("golden retriever",),
    "chicken": ("hen", "rooster"),
    "fruit bowl": ("bowl of fruit",),
    "coffee mug": ("mug", "cup"),
    "beer mug": ("glass of beer",),
    "soccer ball": ("football", "ball"),
    "bonsai tree": ("bonsai",),
    "tulips": ("flowers", "tulip"),
    "potted plant": ("house plant", "plant"),
    "pine tree": ("tree", "fir tree"),
    "rock": ("stone", "boulder"),
    "suitcase": ("travel bag",),
    "handbag": ("purse",),
    "electric guitar": ("guitar",),
    "washing machine": ("washer",),
    "stand mixer": ("mixer",),
    "kettle": ("tea kettle",),
    "cooking pot": ("saucepan",),
    "bus": ("coach",),
    "truck": ("lorry",),
    "toy train": ("train", "locomotive"),
    "parasol": ("beach umbrella",),
    "smartphone": ("mobile phone",),
    "bread": ("loaf of bread",),
    "bathtub": ("tub",),
    "cap": ("baseball cap",),
    "helmet": ("motorcycle helmet",),
    "roasted chicken": ("turkey",),
    "birthday cake": ("cake",),
    "cupcake": ("muffin",),
    "watch": ("wristwatch",),
    "shed": ("garden shed", "hut"),
    "swing": ("swing set",),
}

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.09, 0.09), "orange": (0.95, 0.48, 0.07), "yellow": (0.95, 0.83, 0.12), "green": (0.15, 0.58, 0.17),
    "turquoise": (0.14, 0.72, 0.70), "blue": (0.12, 0.27, 0.82), "purple": (0.48, 0.16, 0.66), "pink": (0.96, 0.52, 0.70),
    "brown": (0.42, 0.25, 0.12), "black": (0.09, 0.09, 0.10), "white": (0.95, 0.95, 0.94), "gray": (0.43, 0.43, 0.44),
}  # fmt: skip

HELD_OUT_SHARE = 0.15


def held_out(name: str, colour: str) -> bool:
    """Whether this colour-object pair is kept out of training (a fixed hash, about 15 % of all pairs)."""
    digest = hashlib.sha256(f"{colour} {name}".encode()).digest()
    return digest[0] / 256 < HELD_OUT_SHARE


def held_out_pairs() -> list[tuple[str, str]]:
    """All (name, colour) pairs that training never shows."""
    return [(name, colour) for name in MODELS for colour in COLOURS if held_out(name, colour)]
