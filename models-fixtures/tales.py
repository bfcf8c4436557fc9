"""Short stories from a small grammar: the text on which the storyteller learns to tell.

Every story names one hero and keeps to it: the hero's animal, name and pronoun, the friend, the
thing and the places are drawn once and used throughout, so a model that has learned the grammar
writes stories that hang together.
"""

ANIMALS = "fox rabbit mouse bear cat dog duck hedgehog squirrel frog owl otter".split()
FRIENDS = "owl turtle deer badger goat crow horse beaver robin sheep toad swan".split()
GIRLS = "Mia Lily Ella Rosa Nina Anna Lucy Ivy".split()
BOYS = "Tom Max Ben Leo Sam Finn Jack Otto".split()
SIZES = "little small young tiny clever kind brave shy".split()
HOMES = [
    "in a small house near the river", "in a warm hole under an old tree", "at the edge of the forest",
    "in a quiet village by the sea", "on a green hill", "in a cosy nest of leaves",
    "next to a big farm", "in a little cottage in the woods",
]
THINGS = "ball hat key kite bell book boat drum".split()
COLOURS = "red blue green yellow golden white".split()
HIDING = [
    "under a big leaf", "behind a stone", "in the tall grass", "on top of a tree",
    "next to the old bridge", "inside a hollow log", "near the pond", "between two rocks",
]
FOODS = ["apples", "berries", "nuts", "honey", "carrots", "bread", "pears", "soup"]
WEATHER = ["sunny", "windy", "cold", "warm", "rainy", "bright"]
OPENINGS = [
    ("Once upon a time, there was", 6), ("Once upon a time, there lived", 2), ("There once was", 2),
    ("Long ago, there was", 2), ("A long time ago, there was", 1),
]
ENDINGS = [
    "From that day on, {name} and the {friend} were best friends.",
    "{name} and the {friend} played together until the sun went down.",
    "That night, {name} went home and slept very well.",
    "And they all lived happily ever after.",
    "{name} smiled all the way home.",
    "After that, {name} was never alone again.",
]

# One list of sentences a plot; each sentence has one or more ways to be said.
PLOTS = [
    [  # something is lost
        "{One} {weather} day, {name} lost {his} {colour} {thing}.",
        "{He} looked {hiding}, but it was not there.|{name} looked {hiding}, but the {thing} was not there.",
        "{name} sat down and began to cry.|{name} was very sad.",
        "Then an old {friend} came along.|Then {he} met a friendly {friend}.",
        '"Can you help me find my {thing}?" asked {name}.|"I have lost my {thing}," said {name}.',
        '"Of course I can," said the {friend}.|"Do not worry," said the {friend}. "I will help you."',
        "Together they looked {hiding2}, and there was the {colour} {thing}!",
        "{name} was so happy that {he} danced.|{name} said thank you and gave the {friend} a big hug.",
    ],
    [  # a friend is stuck
        "{One} {weather} day, {name} went for a walk in the forest.",
        "Suddenly {he} heard a sad voice.|Suddenly {he} heard someone cry for help.",
        "A {friend} was stuck {hiding}.",
        '"Please help me!" said the {friend}.|"Please help me, I cannot get out!" cried the {friend}.',
        "{name} was a bit afraid, but {he} wanted to help.|{name} did not wait.",
        "{He} pulled and pulled until the {friend} was free.|{He} took a long stick and pulled the {friend} out.",
        '"Thank you, {name}! You are very brave," said the {friend}.|"You saved me!" said the {friend}.',
        "The {friend} gave {him} some {food}, and they ate together.",
    ],
    [  # sharing food
        "{One} {weather} morning, {name} found a basket full of {food}.",
        '"These are all for me," {he} said.|{name} wanted to eat them all alone.',
        "Then {he} saw a hungry {friend} {hiding}.",
        "The {friend} had nothing to eat.|The {friend} looked thin and tired.",
        "{name} thought for a while.|{name} felt sorry for the {friend}.",
        'Then {he} said, "Come and eat with me."|"Let us share the {food}," said {name}.',
        "They sat in the sun and ate all the {food}.|They ate and laughed all day.",
        "{name} learned that sharing makes food taste better.|{name} learned that it is good to share.",
    ],
    [  # learning something new
        "{name} wanted to learn how to {skill}.|{name} had one dream. {He} wanted to {skill}.",
        "{He} tried and tried, but {he} could not do it.|Every day {he} tried, but it did not work.",
        "The other animals laughed.|{name} wanted to give up.",
        "Only the {friend} did not laugh.|One day, a wise {friend} saw {him}.",
        '"You must try a little every day," said the {friend}.|"I will teach you," said the {friend}.',
        "So {name} practised every morning {hiding}.",
        "At last, {he} could {skill}!|And one {weather} day, {name} could {skill}!",
        "Everyone clapped, and {name} was very proud.|{name} was very proud and thanked the {friend}.",
    ],
    [  # fear of the dark or a storm
        "One night, there was a big storm.|One night, the wind was very loud.",
        "{name} was afraid and could not sleep.|{name} hid under {his} blanket.",
        "There was a knock at the door.|Then {he} heard a knock at the door.",
        "It was a wet and cold {friend}.|Outside stood a {friend}, and it was cold and wet.",
        '"May I come in?" asked the {friend}.|"Can I stay here tonight?" asked the {friend}.',
        '"Yes, come in," said {name}.|{name} opened the door and let the {friend} in.',
        "They drank warm milk and told each other stories.|They ate {food} and sang songs by the fire.",
        "Soon {name} was not afraid any more.|In the morning, the storm was gone and the sun was shining.",
    ],
    [  # a surprise
        "It was {name}'s birthday, but nobody said a word.|It was {name}'s birthday, and {he} was all alone.",
        '"Has everyone forgotten me?" {he} asked.|{name} thought that everyone had forgotten {him}.',
        "{He} walked to the forest and sat down {hiding}.",
        "There {he} met the {friend}.|Then the {friend} came by.",
        '"Come with me," said the {friend}. "I want to show you something."',
        "They walked until they came to a big tree.|They walked over the bridge and up the hill.",
        "All the animals were there with a big cake and {food}!|There were lights everywhere and a table full of {food}!",
        "{name} got a {colour} {thing} and was very happy.|It was the best birthday of {his} life.",
    ],
    [  # planting
        "One {weather} day, {name} found a strange seed {hiding}.",
        "{He} put it in the ground and gave it water every day.|{He} planted it in front of {his} home.",
        "For a long time, nothing happened.|Days went by, but nothing grew.",
        '"Be patient," said the {friend}. "Good things take time."|"You have to wait," said the {friend}.',
        "{name} waited and waited.|So {name} waited and sang to the seed.",
        "Then one morning, a tall {colour} flower stood there.|Then one morning, there was a tree full of {food2}.",
        "{name} ran to the {friend} to show it.|{name} called the {friend}, and they both laughed with joy.",
    ],
]
SKILLS = ["swim", "dance", "read", "sing", "climb a tree", "bake a cake", "whistle", "skate"]


def story(random, animal=None):
    """One story; `animal` fixes the hero's kind."""
    girl = random.random() < 0.5
    animal = animal or random.choice(ANIMALS)
    hiding, hiding2 = random.sample(HIDING, 2)
    words = {
        "name": random.choice(GIRLS if girl else BOYS),
        "he": "she" if girl else "he", "He": "She" if girl else "He",
        "his": "her" if girl else "his", "him": "her" if girl else "him",
        "One": "One", "weather": random.choice(WEATHER), "colour": random.choice(COLOURS),
        "thing": random.choice(THINGS), "hiding": hiding, "hiding2": hiding2,
        "friend": random.choice([f for f in FRIENDS if f != animal]),
        "food": random.choice(FOODS), "food2": random.choice(["apples", "berries", "nuts", "pears"]),
        "skill": random.choice(SKILLS),
    }
    size = random.choice(SIZES)
    starts, weights = zip(*OPENINGS)
    article = "an" if size[0] in "aeiou" else "a"
    lines = [f"{random.choices(starts, weights)[0]} {article} {size} {animal} named {words['name']}."]
    if random.random() < 0.8:
        lines.append(random.choice(["{name} lived ", "{He} lived "]) + random.choice(HOMES) + ".")
    lines += random.choice(PLOTS) + ([random.choice(ENDINGS)] if random.random() < 0.9 else [])
    return " ".join(random.choice(line.split("|")) for line in lines).format(**words)
