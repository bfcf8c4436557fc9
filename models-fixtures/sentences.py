"""Sentences of four kinds (technical, creative, ethical, casual) from frames and word lists.

A frame is a sentence with slots in braces; a slot is filled from the list of that name. Frames
that begin with `!` are held out: training never sees them, and the accuracy is measured on them.
Their words do occur in other frames.
"""

import re

LABELS = ["technical", "creative", "ethical", "casual"]


def _words(text):
    return [word.strip() for word in text.replace("\n", " ").split(",") if word.strip()]


WORDS = {name: _words(text) for name, text in {
    # technical
    "part": """server, database, compiler, kernel, router, scheduler, parser, cache, container, firewall, sensor,
        processor, driver, cluster, message queue, proxy, buffer, loader, debugger, endpoint, gateway, socket, module,
        library, interpreter, allocator, microcontroller, network card, file system, load balancer, garbage collector,
        hash table, index, pipeline, graphics card, hypervisor, test runner, message broker, web service, thread pool,
        build system, linker, virtual machine, battery controller, encoder, decoder, search engine, neural network""",
    "does": """allocates, compiles, caches, encrypts, parses, indexes, serialises, validates, replicates, compresses,
        decodes, routes, logs, buffers, schedules, hashes, streams, retries, flushes, polls, copies, decrypts, loads,
        sorts, merges, samples, filters, rewrites, transmits, converts""",
    "data": """packets, requests, memory pages, queries, byte arrays, config files, log entries, sensor readings,
        pointers, matrices, tokens, transactions, table rows, header fields, image tiles, audio frames, certificates,
        environment variables, data blocks, network frames, source files, bit masks, integer keys, strings, tensors,
        voltage levels, error codes, shared objects, system calls, stack frames""",
    "fault": """a timeout, a memory leak, a race condition, a stack overflow, a segmentation fault, a syntax error,
        packet loss, a deadlock, a null pointer, high latency, a checksum mismatch, a type error, a buffer overrun,
        a cache miss, an unhandled exception, a broken pipe, a version conflict, a page fault, a rounding error""",
    "tech": """asynchronous, distributed, multithreaded, deprecated, stateless, encrypted, read-only, virtual, nested,
        sparse, linear, recursive, binary, concurrent, embedded, parallel, static, incremental, compressed, remote""",
    "count": "two, three, four, eight, 16, 32, 64, 100, 128, 256, 512, 1024",
    "unit": "megabytes, milliseconds, threads, bits, gigabytes, cores, bytes, kilohertz, volts, connections, nodes",
    "act": """restart, recompile, patch, profile, benchmark, reconfigure, upgrade, debug, deploy, refactor, configure,
        install, calibrate, disable, mount, update, monitor""",
    "tool": """a regular expression, a hash function, a binary search, a mutex, a lookup table, a linked list, a script,
        a config file, a unit test, a checksum, a semaphore, an interface, a callback, a shader, a firmware update""",
    # creative
    "sky": """moon, river, wind, sea, forest, sun, night, rain, mountain, star, ocean, dawn, snow, shadow, storm, valley,
        meadow, desert, twilight, autumn, silence, horizon, lake, mist""",
    "glow": """silver, golden, whispering, forgotten, crimson, velvet, ancient, enchanted, trembling, moonlit, weary,
        endless, dreaming, broken, glittering, lonely, secret, magical, pale, misty, wild, tender""",
    "sings": """whispers, sings, dances, weeps, dreams, glows, wanders, murmurs, trembles, sighs, drifts, shimmers,
        wakes, sleeps, burns, breathes, blooms, fades""",
    "being": """dragon, poet, queen, wizard, ghost, mermaid, knight, fairy, painter, wanderer, phoenix, giant, witch,
        unicorn, sailor, minstrel, angel, raven, prince, orphan, clockmaker, lighthouse keeper""",
    "dream": """forgotten songs, broken stars, lost letters, ancient secrets, burning roses, paper boats, old lullabies,
        crystal tears, silver threads, hidden doors, golden feathers, sleeping cities, distant bells, glass flowers,
        endless dreams, faded memories, velvet shadows, fallen leaves""",
    "place": """a castle of glass, an empty theatre, a garden of ash, a tower of bone, a sea of clouds, a forest of mirrors,
        the edge of the world, a sunken city, a field of lavender, a house of echoes, an enchanted island, a ruined temple""",
    "feel": "sorrow, longing, wonder, hope, grief, joy, desire, melancholy, delight, solitude, love, yearning",
    "weaves": "wove, painted, carved, gathered, buried, followed, chased, carried, kissed, stole, scattered, remembered",
    # ethical
    "who": """companies, governments, doctors, parents, teachers, judges, scientists, soldiers, employers, journalists,
        politicians, citizens, engineers, lawyers, banks, hospitals, schools, leaders, voters, researchers, witnesses""",
    "duty": """tell the truth, respect privacy, protect the weak, keep their promises, share their wealth,
        reduce suffering, ask for consent, treat everyone fairly, admit their mistakes, avoid harm, report abuse,
        respect human dignity, care for the poor, refuse unjust orders, pay a fair wage, protect future generations""",
    "wrong": """lie to a friend, break a promise, test drugs on animals, steal food to survive, punish the innocent,
        profit from suffering, hide the truth, spy on citizens, ignore a cry for help, exploit cheap labour,
        discriminate against minorities, deceive a patient, cheat on an exam, sacrifice one life to save five,
        eat meat, torture a prisoner, waste food, sell private data, take a bribe, abandon an old parent""",
    "value": """justice, honesty, dignity, freedom, fairness, equality, privacy, responsibility, compassion, integrity,
        human rights, consent, trust, loyalty, tolerance, mercy, accountability""",
    "weak": """the poor, children, refugees, animals, patients, workers, the elderly, minorities, prisoners, strangers,
        future generations, the sick, the homeless, whistleblowers, victims""",
    "issue": """the death penalty, surveillance, animal testing, euthanasia, child labour, war, censorship, cloning,
        corruption, inequality, discrimination, slavery, gene editing, automated weapons, racism, tax evasion""",
    "moral": "moral, immoral, unfair, just, unjust, wrong, right, unethical, ethical, acceptable, justified, fair",
    # casual
    "hey": "hey, hi, yo, oh man, dude, wow, haha, hey guys, oh, well, okay, ugh, omg, lol, hey buddy, yeah, nah, aw",
    "fun": """grab some pizza, watch a movie, get a coffee, hang out, play some cards, go bowling, order a burger,
        go to the beach, catch the game, have a beer, bake some cookies, take a nap, go shopping, walk the dog,
        get some ice cream, play video games, go for a swim, have a barbecue, eat tacos, go camping""",
    "when": """tonight, later, tomorrow, after work, this weekend, on Friday, on Sunday, in a bit, next week, after lunch,
        this afternoon, sometime, at six, around noon""",
    "pal": """my brother, my mom, my roommate, Dave, my cousin, my sister, Jenny, grandma, my neighbour, my buddy Mike, Lisa,
        my boss, my dad, the kids, uncle Bob, Sarah""",
    "stuff": """that new show, my couch, the traffic, this weather, that burger place, my old bike, the party, this song,
        my phone, the dog, our team, that concert, the coffee here, my haircut, this hoodie, the weekend, my homework""",
    "meh": "awesome, super tired, so funny, pretty good, kinda weird, really hungry, so bored, crazy, totally fine, "
           "way too early, great, a bit late, so cute, pretty cool, so annoying, not bad at all",
    "did": """slept in, missed the bus, forgot my keys, burned the toast, spilled my coffee, lost my socks, ate too much,
        got a haircut, watched TV all day, stayed up too late, locked myself out, found ten bucks, broke my mug""",
}.items()}

FRAMES = {
    "technical": """
        The {part} {does} {data} before the {part} {does} the next batch.
        The {part} returned {fault} because the {tech} {part} was not initialised.
        You can {act} the {part} with {tool} to avoid {fault}.
        Each {tech} {part} uses {count} {unit} while it {does} {data}.
        After the update, the {part} throws {fault} when it {does} {data}.
        To {act} the {part}, set the limit to {count} {unit} in the settings file.
        The {tech} algorithm {does} {data} in linear time with {tool}.
        A {tech} {part} {does} {data} and stores them in the {part}.
        We fixed {fault} in the {part} by adding {tool}.
        This function {does} all {data} and returns {tool}.
        The {part} needs {count} {unit} because every {part} {does} {data}.
        How do I {act} a {tech} {part} that {does} {data}?
        Why does the {part} report {fault} after {count} {unit}?
        Run the command as root to {act} the {part} and check the {data}.
        If the {part} detects {fault}, it {does} the {data} again.
        The new release replaces the {part} with {tool} for {tech} {data}.
        Memory usage of the {part} grows by {count} {unit} for each of the {data}.
        The {part} is connected to the {part} over a {tech} bus with {count} {unit}.
        First {act} the {part}, then {act} the {tech} {part}.
        The patch reduces the latency of the {part} to {count} {unit}.
        Our {tech} {part} handles {count} {unit} and {does} {data} in parallel.
        The {part} failed with {fault} while it read the {data}.
        Use {tool} in the {part} so that the {part} never sees {fault}.
        The documentation explains how the {part} {does} {tech} {data}.
        Is there a way to {act} the {part} without {fault}?
        The voltage at the {part} drops when the {part} {does} {data}.
        In this version, {tech} {data} are stored in the {part} with {tool}.
        The test shows {fault} in the {part} on line {count}.
        Install the {part} and {act} the {part} before you run the script.
        An error in the {part} causes {fault} for all {tech} {data}.
        My code {does} {data} but the {part} still shows {fault}.
        Data in the {part} is split into {data} of {count} {unit}.
        ! The {tech} {part} crashed with {fault} during the night build.
        ! Please {act} the {part} so that it {does} {count} {unit} of {data}.
        ! Compared with the old {part}, this one {does} {data} with {count} fewer {unit}.
        ! Does the {part} support {tech} {data}, or do I need {tool}?
        ! {fault} appears in the log whenever the {part} {does} {tech} {data}.
        ! With {tool}, the {part} saves {count} {unit} per request.
        ! Both the {part} and the {part} depend on {tech} {data}.
        ! The engineer traced {fault} back to the {tech} {part}.""",
    "creative": """
        The {glow} {sky} {sings} while the {being} counts {dream}.
        Once, a {glow} {being} {weaves} {dream} in {place}.
        In {place}, the {sky} {sings} of {feel} and {dream}.
        The {sky} was a {glow} {being}, wrapped in {dream}.
        She {weaves} {dream} beneath the {glow} {sky} until the dawn.
        O {glow} {sky}, carry my {feel} to {place}.
        Under the {glow} {sky}, a {being} {weaves} {dream}.
        The {being} opened the {glow} door and found {place}.
        My heart is {place}, where the {sky} {sings} alone.
        Like {dream}, the {glow} {sky} {sings} over {place}.
        Write a poem about a {glow} {being} who lives in {place}.
        Imagine a {being} who trades {dream} for {feel}.
        The {being} danced with {feel} across {place}.
        Every night the {glow} {being} {sings} to the {sky}.
        {dream} fell like snow upon the {glow} {sky}.
        He {weaves} the {sky} from {dream} and {feel}.
        And so the {being} sailed beyond the {sky} to {place}.
        A {glow} voice rose from {place} and sang of {dream}.
        The {sky} {sings}, and the {glow} {sky} {sings} with it.
        There, between {dream} and {feel}, the {being} slept.
        Her eyes were {dream}, her voice a {glow} {sky}.
        The old {being} {weaves} the last of the {dream}.
        With {feel} in its wings, the {glow} {being} crossed the {sky}.
        Long ago the {sky} and the {being} shared {place}.
        Tell me a tale of {dream} and a {glow} {being}.
        I dreamed of {place}, where {dream} {weaves} the {sky}.
        Through the {glow} {sky} came a {being} made of {dream}.
        The {being} wept, and her tears became {dream}.
        A story begins in {place}, where a {being} waits for the {sky}.
        Softly the {sky} {sings}, a {glow} song of {feel}.
        No one knew that the {being} {weaves} {dream} by night.
        The {glow} {sky} {sings} above {place} forever.
        ! A thousand {dream} drift where the {glow} {sky} {sings}.
        ! The {being} whispered of {feel} to the {glow} {sky}.
        ! Beyond {place}, a {being} keeps {dream} in a {glow} jar.
        ! Compose a song in which the {sky} falls in love with a {being}.
        ! At midnight {place} filled with {feel} and {dream}.
        ! The {sky} {weaves} the {being} with {glow} hands.
        ! Only the {glow} {being} remembers how the {sky} {sings}.
        ! {feel} is a {glow} {sky} that {sings} in the dark.""",
    "ethical": """
        It is {moral} when {who} refuse to {duty}.
        Is it {moral} to {wrong} if it helps {weak}?
        {who} have a duty to {duty}, even when it costs them money.
        We should {duty} because {value} matters to {weak}.
        Should {who} be allowed to {wrong}?
        The debate about {issue} is a question of {value} and {value}.
        Nobody has the right to {wrong}, whatever the law says.
        {issue} violates the {value} of {weak}.
        Without {value}, {who} can not earn the trust of {weak}.
        Is {issue} ever {moral} in a democracy?
        {who} must {duty} and respect the rights of {weak}.
        It would be {moral} to {wrong} only to gain power.
        Many people believe that {issue} is {moral}.
        What do we owe to {weak} when {who} {wrong}?
        A good society protects {weak} and values {value}.
        To {wrong} is {moral}, even if no one gets hurt.
        {value} demands that {who} {duty}.
        When is it {moral} for {who} to {wrong}?
        The rights of {weak} are more important than profit.
        {who} are responsible for the harm that they cause to {weak}.
        Can {issue} be {moral} if it saves lives?
        We must ask whether it is {moral} to {wrong}.
        It is our moral obligation to {duty} and help {weak}.
        Using algorithms to judge {weak} raises questions of {value}.
        {who} who {wrong} betray the value of {value}.
        The law should protect {weak} from {issue}.
        Every person deserves {value}, and so do {weak}.
        Do {who} have a moral duty to {duty}?
        I think {issue} is {moral} because it hurts {weak}.
        {value} is worth more than money, so {who} should {duty}.
        Some say that it is {moral} to {wrong} in an emergency.
        Ending {issue} is a matter of {value} for {weak}.
        ! Would it be {moral} for {who} to {wrong} in secret?
        ! {issue} treats {weak} without {value}.
        ! If {who} fail to {duty}, {weak} will suffer.
        ! The principle of {value} tells us never to {wrong}.
        ! How can {who} justify {issue} to {weak}?
        ! Respect for {weak} means that we {duty}.
        ! Philosophers disagree on whether {issue} is {moral}.
        ! {who} ought to {duty} instead of asking others to {wrong}.""",
    "casual": """
        {hey}, do you want to {fun} {when}?
        {hey}, I {did} again and now I am {meh}.
        {pal} and I are gonna {fun} {when}, wanna come?
        {stuff} is {meh}, we should totally {fun} {when}.
        {hey}, {pal} {did} this morning, it was {meh}.
        I just {did}, so I can't {fun} {when}, sorry!
        What are you up to {when}? I might {fun}.
        {hey}, thanks for the ride, {stuff} was {meh}!
        Can you text me {when}? {pal} wants to {fun}.
        {hey}, that was {meh}, see you {when}!
        I'm {meh}, let's just {fun} and talk about {stuff}.
        {pal} says {stuff} is {meh}, but I don't know.
        Guess what, {pal} {did} and then we got to {fun}.
        {hey}, how was {stuff}? Mine was {meh}.
        Don't forget we {fun} with {pal} {when}.
        I could really {fun} right now, {stuff} is {meh}.
        {hey}, did you see {stuff}? It's {meh}!
        So I {did} {when} and {pal} just laughed.
        No worries, we can {fun} {when} instead.
        {stuff} made me so happy, {hey}, it's {meh}.
        {hey}, can't talk, I'm about to {fun} with {pal}.
        My day was {meh}, I {did} and {pal} {did}.
        {pal} brought snacks, so come over and {fun}.
        Sounds good, I'll see {pal} {when} and we {fun}.
        I love {stuff}, it's {meh}, you gotta try it.
        {hey}, I'm running late, {pal} {did}.
        Are you coming {when}? {pal} will {fun} too.
        Happy birthday! Let's {fun} {when}, okay?
        {hey}, I can't believe {pal} {did}.
        You know, {stuff} is {meh} when I {fun}.
        Wanna {fun}? I'm {meh} and {stuff} is boring.
        Been a while! How's {pal}? I {did}, haha.
        ! {hey}, I'm so glad we got to {fun} {when}.
        ! Let me know if {pal} wants to {fun} {when}.
        ! Not gonna lie, {stuff} is {meh} today.
        ! {pal} totally {did}, {hey}, you should have seen it.
        ! I was gonna {fun}, but then I {did}.
        ! {hey}, what's for dinner? I'm {meh} and I {did}.
        ! Maybe we {fun} {when}, if {pal} is not {meh}.
        ! Ask {pal} about {stuff}, it's {meh}, {hey}.""",
}


def _frames(label, held_out):
    lines = [line.strip() for line in FRAMES[label].strip().splitlines()]
    return [line.lstrip("! ") for line in lines if line.startswith("!") == held_out]


TRAINING = {label: _frames(label, False) for label in LABELS}
HELD_OUT = {label: _frames(label, True) for label in LABELS}


def fill(random, frame):
    """A frame with its slots filled, no word twice."""
    used = set()

    def draw(slot):
        word = random.choice([w for w in WORDS[slot.group(1)] if w not in used])
        used.add(word)
        return word

    text = re.sub(r"\{(\w+)\}", draw, frame)
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return text[0].upper() + text[1:]


def sentence(random, label=None, held_out=False):
    """A label and a sentence of 8 to 20 words of its kind."""
    label = label or random.choice(LABELS)
    frames = (HELD_OUT if held_out else TRAINING)[label]
    while True:
        text = fill(random, random.choice(frames))
        if 8 <= len(text.split()) <= 20:
            return label, text


SLOTS = {
    "technical": "part does data fault tech act tool part data".split(),
    "creative": "sky glow sings being dream place feel weaves".split(),
    "ethical": "who duty wrong value weak issue moral".split(),
    "casual": "hey fun when pal stuff meh did".split(),
}
LINKS = _words("""and, with, of, in, the, to, for, because, when, that, is, a, if, not, as, but, or, on, at, from, by, we,
    it, how, so, only, this, never, they, us, does, are, has, would, can, then, about, between, while, what, who, I, you,
    will, back, all, one, let, please, instead, without, just, more, there, my, your, their""")


def loose_sentence(random):
    """A label and broken text of its kind, for training only.

    Its words carry the label and its frame does not: without it the model knows the training frames by their
    small words, and is at a loss in any other.
    """
    label = random.choice(LABELS)
    if random.random() < 0.5:
        parts = []
        for slot in random.choices(SLOTS[label], k=random.randint(2, 5)):
            parts += random.choices(LINKS, k=random.choice([0, 1, 1, 2, 3]))
            parts.append("{" + slot + "}")
        parts += random.choices(LINKS, k=random.choice([0, 0, 1, 2]))
    else:
        parts = []
        for word in random.choice(TRAINING[label]).split():
            chance = 1.0 if "{" in word else random.random()
            if chance > 0.5:
                parts.append(word)
            elif chance > 0.25:
                parts.append(random.choice(LINKS))
    text = fill(random, " ".join(parts)).rstrip(".?!")
    return label, text + random.choice([".", ".", ".", "?", "!", ""])


def prompt(text):
    """The instruction that the original application sends."""
    return (f"Classify this text into exactly one category: technical, creative, ethical, casual.\n\n"
            f"Text: {text}\n\nCategory:")
