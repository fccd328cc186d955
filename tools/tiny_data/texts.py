"""What is said: digits, commands, sentences of templates, and questions with their answers.

Whether a text is trained on or held out is decided by the text itself, so that no order of drawing can mix them.
"""

import functools
from collections.abc import Callable

import numpy as np

from tools.tiny_data import examples

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS = (*DIGITS, "ten", "eleven", "twelve")

_DEVICES = ("the light", "the radio", "the heater", "the fan", "the television", "the music", "the alarm", "the camera")
_ROOMS = ("kitchen", "bedroom", "garden", "garage", "bathroom")
COMMANDS = (
    *(f"Turn {way} {thing}." for thing in _DEVICES for way in ("on", "off")),
    *(f"Turn {way} the {room} light." for room in _ROOMS for way in ("on", "off")),
    *(f"{verb} the {thing}." for thing in ("door", "window", "gate", "box", "book", "curtain")
      for verb in ("Open", "Close")),
    *(f"Lock the {thing}." for thing in ("door", "gate", "car")),
    *(f"Set a timer for {number} minutes." for number in NUMBERS[1:]),
    *(f"Go {way}." for way in ("left", "right", "back", "forward", "up", "down", "home")),
    *(f"Turn {way}." for way in ("left", "right", "around")),
    *(f"Play {what}." for what in ("the song again", "some music", "the next song", "the last song", "the news")),
    *(f"Call {who}." for who in ("my mother", "my father", "my sister", "my brother", "the doctor", "the office")),
    *(f"Tell me {what}." for what in ("the time", "the news", "a story", "a joke", "the weather")),
    "Stop.", "Start again.", "Pause the music.", "Make it louder.", "Make it quieter.", "Take a picture.",
    "Send a message.", "Read the message.", "Wake me up at seven.", "Good morning.", "Good night.", "Thank you.",
    "Help me.", "Show me the map.", "Find my phone.", "Start the car.", "Clean the floor.", "Wash the dishes.",
    "Feed the cat.", "Feed the dog.", "Water the plants.", "Make some coffee.",
)

_ADJECTIVES = ("small", "big", "old", "young", "happy", "tired", "brown", "white", "black", "red", "quiet", "hungry",
               "clever", "strong", "kind")
_PEOPLE = ("man", "woman", "boy", "girl", "teacher", "doctor", "farmer", "child", "baker", "friend", "king", "queen",
           "driver", "sailor", "mother", "father", "brother", "sister")
_ANIMALS = ("cat", "dog", "horse", "bird", "cow", "rabbit", "mouse", "bear", "fish", "duck", "sheep", "fox", "lion",
            "elephant", "monkey", "frog")
_THINGS = ("apple", "book", "letter", "ball", "cup", "hat", "key", "basket", "bottle", "chair", "flower", "knife",
           "lamp", "picture", "shoe", "table", "stone", "bread", "cake", "orange", "clock", "bag")
_PLACES = ("house", "garden", "river", "school", "market", "forest", "mountain", "bridge", "beach", "kitchen",
           "station", "church", "field", "street", "park", "shop", "island", "village", "library", "lake")
_ACTS = ("found", "bought", "carried", "lost", "sold", "took", "brought", "painted", "washed", "dropped", "wanted",
         "liked", "saw")
_MOVES = ("walked", "ran", "came", "went", "jumped", "slept", "waited", "sat", "played", "stood", "stayed", "worked")
_WHERE = ("near", "behind", "in", "beside", "to", "from", "across")
_WHEN = ("in the morning", "in the evening", "at night", "yesterday", "today", "every day", "last week", "on Monday",
         "on Friday", "in the summer", "in the winter", "after the rain", "before lunch", "again")
_COLOURS = ("red", "green", "blue", "yellow", "white", "black", "brown", "pink", "purple", "orange")

_OPPOSITES = {"hot": "cold", "big": "small", "up": "down", "left": "right", "old": "young", "day": "night",
              "black": "white", "open": "closed", "happy": "sad", "fast": "slow", "good": "bad", "high": "low"}
_HUES = {"a banana": "yellow", "grass": "green", "snow": "white", "coal": "black", "the sky": "blue",
         "a tomato": "red", "a carrot": "orange", "chocolate": "brown", "a pig": "pink", "a lemon": "yellow",
         "a frog": "green", "blood": "red"}
_CALLS = {"a cat": "Meow", "a dog": "Woof", "a cow": "Moo", "a duck": "Quack", "a sheep": "Baa", "a lion": "Roar",
          "a bee": "Buzz", "a snake": "Hiss"}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SELF = (
    (("Who are you?", "What are you?", "Tell me about yourself."),
     "I am omni tiny, a small model that listens and looks."),
    (("What is your name?", "Do you have a name?"), "My name is omni tiny."),
    (("Hello.", "Hello there.", "Good day."), "Hello. How can I help you?"),
    (("How are you?", "How do you feel?"), "I am fine, thank you."),
    (("What can you do?", "How can you help me?"), "I can listen, look, read and speak."),
    (("Goodbye.", "See you soon."), "Goodbye."),
    (("Are you a person?", "Are you human?"), "No, I am a small model."),
    (("Can you hear me?",), "Yes, I can hear you."),
)


def is_held_out(text: str) -> bool:
    """Whether a text is never trained on."""
    return examples.is_held_out(text.lower())


def digits(rng: np.random.Generator) -> str:
    """As in "Three, nine, nine, one."."""
    words = rng.choice(DIGITS, rng.integers(2, 7)).tolist()
    return " ".join(words).capitalize() + "."


def command(rng: np.random.Generator) -> str:
    return str(rng.choice(COMMANDS))


def sentence(rng: np.random.Generator) -> str:
    """Five to about twelve words."""
    pick = lambda words: str(rng.choice(words))
    who = lambda: f"the {pick(_ADJECTIVES) + ' ' if rng.random() < 0.5 else ''}{pick((*_PEOPLE, *_ANIMALS))}"
    thing = lambda: f"{pick(('a', 'the', 'my', 'his', 'her'))} {pick(('new', 'old', *_COLOURS))} {pick(_THINGS)}"
    place = lambda: f"{pick(_WHERE)} the {pick(_PLACES)}"
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"{who()} {pick(_ACTS)} {thing()} {pick(_WHEN)}",
        lambda: f"{who()} {pick(_MOVES)} {place()} {pick(_WHEN)}",
        lambda: f"{who()} and {who()} {pick(_MOVES)} {place()}",
        lambda: f"there is {thing()} {place()}",
        lambda: f"{pick(('I', 'we', 'you', 'they'))} {pick(_ACTS)} {thing()} {place()}",
        lambda: f"{pick(('I', 'we', 'they'))} have {pick(NUMBERS[2:])} {pick(_THINGS[:6])}s {place()}",
        lambda: f"{pick(_WHEN)} {who()} {pick(_MOVES)} {place()}",
    )
    text = forms[rng.integers(len(forms))]()
    return text[0].upper() + text[1:] + "."


def question(rng: np.random.Generator) -> str:
    return str(rng.choice(list(questions())))


@functools.cache
def questions() -> dict[str, str]:
    """All questions that need nothing but words, with their answers."""
    found = {question: answer for forms, answer in _SELF for question in forms}
    named = lambda number: NUMBERS[number].capitalize() + "."
    for a in range(10):
        found[f"What comes after {NUMBERS[a]}?"] = named(a + 1)
        found[f"What comes before {NUMBERS[a + 1]}?"] = named(a)
        found |= {f"What is {NUMBERS[a]} plus {NUMBERS[b]}?": named(a + b) for b in range(10) if a + b <= 12}
    for pair in _OPPOSITES.items():
        for a, b in (pair, pair[::-1]):
            found[f"What is the opposite of {a}?"] = b.capitalize() + "."
    for day, after in zip(_DAYS, (*_DAYS[1:], _DAYS[0]), strict=True):
        found[f"Which day comes after {day}?"], found[f"Which day comes before {after}?"] = f"{after}.", f"{day}."
    found |= {f"What colour is {thing}?": colour.capitalize() + "." for thing, colour in _HUES.items()}
    return found | {f"What does {animal} say?": call + "." for animal, call in _CALLS.items()}
