"""Questions and answers from tables: the text on which the storyteller learns to chat."""

from tales import ANIMALS, story

COLOUR_OF = {
    "the sky": "blue", "the sea": "blue", "grass": "green", "a leaf": "green", "the sun": "yellow",
    "a banana": "yellow", "a lemon": "yellow", "snow": "white", "milk": "white", "a cloud": "white",
    "a strawberry": "red", "blood": "red", "a tomato": "red", "a cherry": "red", "a carrot": "orange",
    "an orange": "orange", "the night": "black", "coal": "black", "chocolate": "brown", "wood": "brown",
    "a pig": "pink", "an elephant": "grey", "a frog": "green", "a swan": "white", "a crow": "black",
    "a violet": "purple", "a plum": "purple", "gold": "yellow", "a fox": "red", "a bear": "brown",
}
SOUND_OF = {
    "a cow": "moo", "a dog": "woof", "a cat": "meow", "a duck": "quack", "a sheep": "baa", "a pig": "oink",
    "a horse": "neigh", "a lion": "roar", "a frog": "ribbit", "a bee": "buzz", "an owl": "hoot",
    "a mouse": "squeak", "a snake": "hiss", "a hen": "cluck", "a wolf": "howl", "a crow": "caw",
}
OPPOSITES = [
    "hot cold", "big small", "day night", "fast slow", "happy sad", "old young", "up down", "left right",
    "good bad", "light dark", "open closed", "full empty", "hard soft", "high low", "wet dry", "rich poor",
    "early late", "long short", "strong weak", "black white",
]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = "zero one two three four five six seven eight nine ten".split()
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "England": "London",
    "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "Greece": "Athens", "Egypt": "Cairo",
    "Austria": "Vienna", "Portugal": "Lisbon", "Sweden": "Stockholm", "Norway": "Oslo", "Poland": "Warsaw",
    "Ireland": "Dublin", "Canada": "Ottawa", "India": "New Delhi",
}
LEGS = {
    "a dog": 4, "a cat": 4, "a horse": 4, "a cow": 4, "a bird": 2, "a duck": 2, "a spider": 8, "an ant": 6,
    "a bee": 6, "a snake": 0, "a fish": 0, "a frog": 4,
}
HOMES = {
    "a fish": "in the water", "a bird": "in a nest", "a bear": "in the forest", "a bee": "in a hive",
    "a camel": "in the desert", "a penguin": "where it is cold", "a cow": "on a farm", "a fox": "in a den",
    "a whale": "in the sea", "a spider": "in a web",
}
HAVE = [
    (4, "How many seasons are there?", "There are four seasons in a year."),
    (4, "How many days are in a week?", "There are seven days in a week."),
    (4, "How many months are in a year?", "There are twelve months in a year."),
    (3, "How many hours are in a day?", "There are twenty-four hours in a day."),
    (3, "How many minutes are in an hour?", "There are sixty minutes in an hour."),
    (3, "How many fingers do I have?", "You have ten fingers."),
    (3, "What do bees make?", "Bees make honey."),
    (3, "What do cows eat?", "Cows eat grass."),
    (3, "What do we drink?", "We drink water."),
    (3, "When does the sun rise?", "The sun rises in the morning."),
    (3, "Where does the sun rise?", "The sun rises in the east."),
    (3, "What is ice?", "Ice is frozen water."),
    (3, "What falls in winter?", "In winter, snow falls."),
]
SMALL_TALK = [
    ("Hello!|Hello|Hi!|Hi|Hi there!|Hey|Good day!|Hello there!", "Hello! How can I help you?"),
    ("Good morning!|Good morning", "Good morning! How can I help you?"),
    ("Good evening!|Good evening", "Good evening! How can I help you?"),
    ("How are you?|How are you today?|How do you do?", "I am fine, thank you. How are you?"),
    ("Who are you?|What are you?|Tell me who you are.|who are you", "I am a little storyteller, a small language model."),
    ("What is your name?|What's your name?|Do you have a name?", "My name is Storyteller."),
    ("What can you do?|How can you help me?", "I can tell short stories, answer simple questions and sort texts."),
    ("Who made you?|Where do you come from?", "I was made by a small program with simple words."),
    ("Thank you!|Thanks!|Thank you very much.|Thanks a lot|Thank you", "You are welcome!"),
    ("Goodbye!|Bye!|Bye|See you!|Goodbye", "Goodbye! Have a nice day."),
    ("Good night!|Good night", "Good night! Sleep well."),
    ("Are you a human?|Are you a person?|Are you real?", "No, I am a small language model."),
    ("I am happy.|I feel happy today.", "I am glad to hear that!"),
    ("I am sad.|I feel sad today.", "I am sorry to hear that. Shall I tell you a story?"),
    ("What is the meaning of life?|What is love?|What will happen tomorrow?|Who will win?|How old am I?"
     "|What did I eat today?|Where do I live?", "I am sorry, I do not know that."),
]
SYSTEMS = [
    "You are a helpful assistant.", "You are a friendly assistant.", "Answer in one short sentence.",
    "You are a storyteller.", "Be kind and polite.", "You are a small model that answers simple questions.",
    "You are a teacher for children.", "Please answer shortly.", "You are helpful, honest and kind.",
    "You know about animals, colours and numbers.", "Answer politely.", "Speak simple English.",
]


def _colour(random):
    thing, colour = random.choice(list(COLOUR_OF.items()))
    word = random.choice(["colour", "color"])
    ask = random.choices([
        f"What {word} is {thing}?", f"Which {word} is {thing}?", f"What is the {word} of {thing}?",
        f"Tell me the {word} of {thing}.", f"what {word} is {thing}",
    ], [5, 1, 1, 1, 1])[0]
    return ask, f"{thing[0].upper()}{thing[1:]} is {colour}."


def _sound(random):
    animal, sound = random.choice(list(SOUND_OF.items()))
    ask = random.choices([
        f"What does {animal} say?", f"What sound does {animal} make?", f"Which sound does {animal} make?",
        f"what does {animal} say",
    ], [3, 3, 1, 1])[0]
    return ask, f"{animal[0].upper()}{animal[1:]} says {sound}."


def _opposite(random):
    pair = random.choice(OPPOSITES).split()
    random.shuffle(pair)
    ask = random.choice([f"What is the opposite of {pair[0]}?", f"What is the opposite of {pair[0]}?",
                         f"Tell me the opposite of {pair[0]}.", f"the opposite of {pair[0]}"])
    return ask, f"The opposite of {pair[0]} is {pair[1]}."


def _order(random):
    names, kind = random.choice([(DAYS, "day"), (MONTHS, "month")])
    at = random.randrange(len(names))
    after = random.random() < 0.65
    other = names[(at + (1 if after else -1)) % len(names)]
    word = "after" if after else "before"
    ask = random.choice([f"What {kind} comes {word} {names[at]}?", f"Which {kind} comes {word} {names[at]}?",
                         f"What comes {word} {names[at]}?"])
    return ask, f"{other} comes {word} {names[at]}."


def _sum(random):
    a = random.randint(0, 10)
    b = random.randint(0, 10 - a)
    if random.random() < 0.3:
        a, b, total = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
        return f"What is {a} plus {b}?", f"{a.capitalize()} plus {b} is {total}."
    ask = random.choice([f"What is {a} + {b}?", f"What is {a} plus {b}?", f"How much is {a} + {b}?", f"{a} + {b}"])
    return ask, f"{a} + {b} is {a + b}."


def _count(random):
    at = random.randrange(10)
    if random.random() < 0.5:
        return f"What number comes after {at}?", f"After {at} comes {at + 1}."
    return f"What number comes after {NUMBERS[at]}?", f"After {NUMBERS[at]} comes {NUMBERS[at + 1]}."


def _capital(random):
    country, city = random.choice(list(CAPITALS.items()))
    ask = random.choices([f"What is the capital of {country}?", f"Tell me the capital of {country}.",
                          f"Which city is the capital of {country}?", f"capital of {country}"], [4, 1, 1, 1])[0]
    return ask, f"The capital of {country} is {city}."


def _animal(random):
    if random.random() < 0.6:
        animal, legs = random.choice(list(LEGS.items()))
        count = "no" if legs == 0 else NUMBERS[legs]
        return f"How many legs does {animal} have?", f"{animal[0].upper()}{animal[1:]} has {count} legs."
    animal, home = random.choice(list(HOMES.items()))
    return f"Where does {animal} live?", f"{animal[0].upper()}{animal[1:]} lives {home}."


def _have(random):
    _, ask, answer = random.choice(HAVE)
    return ask, answer


def _talk(random):
    asks, answer = random.choice(SMALL_TALK)
    return random.choice(asks.split("|")), answer


def _tell(random):
    if random.random() < 0.5:
        ask = random.choice(["Tell me a story.", "Please tell me a story.", "Tell me a short story.", "Can you tell me a story?"])
        return ask, story(random)
    animal = random.choice(ANIMALS)
    article = "an" if animal[0] in "aeiou" else "a"
    ask = random.choice(["Tell me a story about", "Please tell me a story about", "Tell me a short story about"])
    return f"{ask} {article} {animal}.", story(random, animal)


KINDS = [(_colour, 5), (_sound, 3), (_opposite, 3), (_order, 3), (_sum, 5), (_count, 1), (_capital, 4),
         (_animal, 3), (_have, 2), (_talk, 4)]


def question(random, stories=True):
    """One question and its answer."""
    kinds, weights = zip(*(KINDS + ([(_tell, 1)] if stories else [])))
    return random.choices(kinds, weights)[0](random)


def chat(random, stories=0.0):
    """A conversation as messages; it ends with an answer. `stories` is the share of those that are only about one."""
    messages = []
    if random.random() < 0.4:
        messages.append({"role": "system", "content": random.choice(SYSTEMS)})
    turns = random.choices([1, 2, 3], [6, 3, 1])[0]
    for turn in range(turns):
        long = stories and turns == 1 and random.random() < stories
        ask, answer = _tell(random) if long else question(random, stories=turns == 1)
        messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
    return messages
