"""What is pictured: names in plain English, and the drawings of each that all three sets have.

A thing may have several drawings (a whole cat, a cat's face): whoever knows the thing knows all of them. Left out is
what the three sets draw as different things, and what can hardly be told from something else in the table.
"""

import dataclasses

# Names, and after "=" the icons where their name is not just that with hyphens.
_ONE = """
ant, bat, bear, bee = honeybee, bird, butterfly, camel = camel two-hump-camel, cat = cat cat-face,
chick = baby-chick front-facing-baby-chick, chicken, cow = cow cow-face, crab, crocodile, dinosaur = sauropod t-rex,
dog = dog dog-face, dolphin, dragon = dragon dragon-face, duck, elephant, fish = fish tropical-fish, flamingo, fox,
frog, giraffe, goat, hedgehog, hippo = hippopotamus, horse = horse horse-face, jellyfish, kangaroo, koala,
ladybird = lady-beetle, lion, lizard, lobster, monkey = monkey monkey-face, mouse = mouse mouse-face, octopus, owl,
panda, parrot, peacock, penguin, pig = pig pig-face, rabbit = rabbit rabbit-face, raccoon, scorpion, seal, shark,
sheep = ewe, shrimp, sloth, snail, snake, spider, squid, squirrel = chipmunk, swan, tiger = tiger tiger-face, turkey,
turtle, unicorn, whale = whale spouting-whale, wolf, worm, zebra,

cactus, tree = deciduous-tree, fir tree = evergreen-tree, palm tree, mushroom, rose, sunflower, tulip,
flower = hibiscus blossom, leaf = maple-leaf, clover = four-leaf-clover, feather, potted plant,
seashell = spiral-shell,

apple = red-apple green-apple, avocado, baguette = baguette-bread, banana, cake = birthday-cake, carrot, coconut,
cookie, croissant, cucumber, cupcake, doughnut, egg, fried egg = cooking, aubergine = eggplant, hamburger, hot dog,
ice cream = ice-cream soft-ice-cream, kiwi = kiwi-fruit, lemon, lollipop, onion, orange = tangerine, peach,
peanut = peanuts, pear, pepper = bell-pepper, chilli = hot-pepper, pineapple, pizza, pretzel, salad = green-salad,
sandwich, strawberry, sweet = candy, taco, tomato, waffle, watermelon, teapot, cup = hot-beverage, beer = beer-mug,
wine glass, spoon, knife = kitchen-knife, honey pot, baby bottle,

accordion, alarm clock, anchor, axe, backpack, balloon, baseball, basket, basketball, bathtub, battery, bed, bell,
bomb, book = closed-book blue-book green-book orange-book, open book, boot = womans-boot hiking-boot, bow = ribbon,
boxing glove, broom, bucket, calendar, camera, candle, cap = billed-cap, chair, coin, compass, crown,
diamond = gem-stone, dice = game-die, door, dress, drum, envelope, fan = folding-hand-fan, fire extinguisher, flute,
football = soccer-ball, gear, ghost, guitar, hammer, handbag, heart = red-heart blue-heart green-heart,
hourglass = hourglass-done hourglass-not-done, ice skate, key = key old-key, keyboard, kite, ladder, laptop,
light bulb, lipstick, magic wand, magnet, magnifying glass = magnifying-glass-tilted-left
magnifying-glass-tilted-right, medal = sports-medal, microphone, microscope, mobile phone, newspaper,
padlock = locked unlocked, paintbrush, palette = artist-palette, paperclip, pen, pencil, piano = musical-keyboard,
present = wrapped-gift, pumpkin = jack-o-lantern, pushpin, puzzle piece, radio, ring, robot, roller skate,
ruler = straight-ruler, saw = carpentry-saw, saxophone, scarf, screwdriver, shield, shirt = t-shirt,
shoe = running-shoe, shopping trolley = shopping-cart, skateboard, skull, snowman = snowman snowman-without-snow,
sofa = couch-and-lamp, spanner = wrench, stethoscope, stop sign, suitcase = luggage, syringe, target = bullseye,
teddy bear, telephone, telescope, television, thermometer, tie = necktie, toilet, toolbox, toothbrush, top hat,
torch = flashlight, traffic light = vertical-traffic-light horizontal-traffic-light, trophy, trumpet, umbrella,
violin, watch, wheel,

cloud, drop = droplet, globe = globe-showing-europe-africa globe-showing-americas, moon = crescent-moon,
mountain = mountain snow-capped-mountain, planet = ringed-planet, rainbow, snowflake, star, sun, tornado, volcano,
wave = water-wave, castle, church, factory, ferris wheel, fountain, house, tent,

aeroplane = airplane small-airplane, ambulance, bicycle, bus, cable car = aerial-tramway, canoe, car = automobile,
fire engine, helicopter, lorry = articulated-lorry delivery-truck, motorcycle, parachute, police car, rocket,
sailing boat = sailboat, scooter = kick-scooter, ship, spaceship = flying-saucer, taxi, tractor, train = locomotive
"""
_MANY = """
blueberries, cherries, chips = french-fries, chopsticks, glasses, gloves, grapes, headphones = headphone, pancakes,
paw prints, scissors, shorts, socks, sunglasses, trousers = jeans
"""
_STUFF = """
bacon, bread, broccoli, butter, cheese = cheese-wedge, chocolate = chocolate-bar, corn = ear-of-corn, fire,
lightning = high-voltage, popcorn, soap, spaghetti, sushi
"""
_PLURALS = {"fish": "fish", "mouse": "mice", "sheep": "sheep", "wolf": "wolves", "leaf": "leaves", "knife": "knives",
            "snowman": "snowmen", "dice": "dice", "squid": "squid", "shrimp": "shrimp", "jellyfish": "jellyfish",
            "scarf": "scarves", "chilli": "chillies"}


@dataclasses.dataclass(frozen=True)
class Thing:
    """`form`: "one" (a cat), "many" (scissors) or "stuff" (bread); `icons`: its drawings, common to all sets."""

    name: str
    icons: tuple[str, ...]
    form: str

    @property
    def phrase(self) -> str:
        """As it is named in a sentence: "a cat", "an owl", "scissors", "bread"."""
        return f"{'an' if self.name[0] in 'aeiou' and self.name != 'unicorn' else 'a'} {self.name}" \
            if self.form == "one" else self.name

    @property
    def verb(self) -> str:
        return "are" if self.form == "many" else "is"

    @property
    def plural(self) -> str:
        if self.form != "one" or self.name in _PLURALS:
            return _PLURALS.get(self.name, self.name)
        if self.name.endswith("y") and self.name[-2] not in "aeiou":
            return f"{self.name[:-1]}ies"
        return self.name + ("es" if self.name.endswith(("s", "x", "ch", "sh", "ato", "nado", "cano")) else "s")


def _table(text: str, form: str) -> list[Thing]:
    entries = (entry.partition("=") for entry in text.split(",") if entry.strip())
    return [Thing(name.strip(), tuple(icons.split()) or (name.strip().replace(" ", "-"),), form)
            for name, _, icons in entries]


THINGS = {thing.name: thing for thing in _table(_ONE, "one") + _table(_MANY, "many") + _table(_STUFF, "stuff")}
