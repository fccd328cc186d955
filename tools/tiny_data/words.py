"""The words of the sentences that omni-tiny learns to say, by what part they play, and words that it never learns.

British spelling, as everywhere in the data. A verb is "base past" ("base past third" where the third person is not made
by the rule).
"""

PEOPLE = """
actor artist aunt author baby baker banker barber boy boss brother builder butcher captain carpenter chef child
citizen clerk coach cook cousin customer dancer daughter dentist designer doctor driver editor engineer expert farmer
father fisherman friend gardener girl grandfather grandmother guard guest guide hero hunter husband inventor judge
king knight lady lawyer leader librarian man manager mayor mechanic miller miner mother musician neighbour nephew
nurse officer owner painter parent partner passenger photographer pilot player poet policeman postman president prince
princess professor prisoner pupil queen reader reporter rider runner sailor scientist secretary shepherd singer sister
soldier son speaker stranger student surgeon swimmer tailor teacher thief tourist trader traveller twin uncle visitor
waiter waitress walker widow wife winner wizard woman worker writer
"""
ANIMALS = """
ant bat bear bee bird bull butterfly calf camel cat chick chicken cow crab crow deer dog dolphin donkey duck eagle
elephant fish fly fox frog giraffe goat goose hamster hen hippo horse insect kangaroo kitten lamb lion lizard monkey
mouse octopus owl panda parrot peacock penguin pig pigeon pony puppy rabbit rat robin seal shark sheep snail snake
spider squirrel swan tiger turkey turtle whale wolf worm zebra
"""
THINGS = """
album apple armchair arrow axe backpack bag ball balloon banana bandage banner barrel basket bath battery beard bed
bell belt bench bicycle bill blanket board boat bone book boot bottle bowl box bracelet branch brick broom brush
bucket bus button cake calendar camera candle cap car card carpet carrot cart chain chair chalk cheese cherry chest
clock cloak coat coconut coin collar comb computer cookie cooker costume cotton cradle crown cucumber cup cupboard
curtain cushion desk diamond diary dictionary dish doll door drawer dress drum egg elbow engine envelope face fan
feather fence finger flag flower flute football fork frame fridge gate gift glass glove gown grape guitar hammer
handbag handle hat heart heater helmet hook horn ice idea ink instrument iron jacket jar jewel jug kettle key keyboard
kite knife knot ladder lamp lantern leaf leather lemon letter lid lock lorry loaf machine magazine magnet map mask
match medal medicine melon menu message milk mirror model motor mug mushroom nail necklace needle nest net newspaper
notebook novel nut oar onion orange oven packet page paint pan paper parcel passport pearl peach pear pen pencil
pepper phone photograph piano picture pie pill pillow pipe plane plant plate pocket poem pole postcard poster pot
potato powder present pump pumpkin purse puzzle radio raft rail razor recipe record ribbon ring robe robot rock rocket
rope rose rug ruler sack saddle sail sandwich saucer saw scarf screen screw seat seed shawl shell shelf shield ship
shirt shoe shovel sign silk sink skirt sleeve soap sock sofa spade spoon stamp statue stick sticker stone stool stove
string suit suitcase sweater sword table tablet tail tank tap tape taxi teapot telephone television tent thread ticket
tie tile toast tomato tool torch towel toy tractor train tray treasure tree trumpet trunk umbrella uniform vase vest
violin wagon wallet watch wheel whistle wig window wing wire wood wool
"""
PLACES = """
airport alley attic avenue bank barn bakery basement bathroom bay beach bedroom border bridge building cabin camp
canal canyon castle cathedral cave cellar church cinema city classroom cliff clinic club coast college corner corridor
cottage country court courtyard desert factory farm field forest fountain garage garden gallery hall harbour hill
hospital hotel house hut inn island jungle kitchen lake library lighthouse market meadow mill mine mountain museum
oasis ocean office orchard palace park path pharmacy pond pool port prison pub pyramid restaurant river road roof room
ruin school shed shop shore square stable stadium station stream street studio supermarket swamp temple theatre tower
town tunnel university valley village volcano warehouse waterfall yard zoo
"""
MATTERS = """
adventure advice anger art beauty business change chance childhood colour comfort courage culture danger darkness
death dinner dream duty education energy experience failure faith fame fashion fear football freedom friendship fun
future government happiness health history home honour hope hunger justice kindness knowledge language laughter law
life literature love luck lunch magic marriage mathematics medicine memory money music nature noise peace poetry
politics poverty power pride progress religion respect science silence sleep space speech sport strength success
summer technology time trade traffic travel trouble trust truth victory war wealth weather winter wisdom work youth
"""
# As in "the man … the box".
ACTS = """
accept accepted, admire admired, allow allowed, answer answered, ask asked, bake baked, borrow borrowed, break broke,
bring brought, build built, burn burned, buy bought, call called, carry carried, catch caught, check checked, choose
chose, clean cleaned, climb climbed, close closed, collect collected, colour coloured, compare compared, control
controlled, copy copied, count counted, cover covered, create created, cut cut, damage damaged, decorate decorated,
deliver delivered, describe described, design designed, destroy destroyed, discover discovered, discuss discussed,
divide divided, draw drew, drop dropped, dry dried, enjoy enjoyed, examine examined, feed fed, fill filled, find
found, finish finished, fix fixed, fold folded, follow followed, forget forgot, gather gathered, give gave, guard
guarded, hate hated, have had has, hear heard, heat heated, help helped, hide hid, hit hit, hold held, hurt hurt,
imagine imagined, improve improved, invent invented, keep kept, kick kicked, know knew, leave left, lend lent, lift
lifted, like liked, lock locked, lose lost, love loved, make made, mark marked, measure measured, mend mended, miss
missed, mix mixed, move moved, need needed, notice noticed, offer offered, open opened, order ordered, own owned, pack
packed, paint painted, pass passed, pick picked, plan planned, polish polished, prefer preferred, prepare prepared,
press pressed, print printed, protect protected, prove proved, pull pulled, push pushed, put put, raise raised, reach
reached, read read, receive received, remember remembered, remove removed, rent rented, repair repaired, repeat
repeated, replace replaced, return returned, save saved, see saw, sell sold, send sent, serve served, shake shook,
share shared, show showed, spell spelled, steal stole, stop stopped, store stored, study studied, support supported,
take took, taste tasted, teach taught, tear tore, test tested, throw threw, tidy tidied, touch touched, trust trusted,
turn turned, understand understood, use used, visit visited, want wanted, warm warmed, wash washed, waste wasted,
watch watched, wear wore, weigh weighed, win won, wrap wrapped, write wrote
"""
MOVES = """
appear appeared, arrive arrived, begin began, camp camped, come came, cough coughed, crawl crawled, cry cried, dance
danced, disappear disappeared, dive dived, drive drove, eat ate, escape escaped, fall fell, fight fought, float
floated, fly flew, go went goes, grow grew, hurry hurried, jump jumped, land landed, laugh laughed, lie lay, listen
listened, live lived, march marched, meet met, pause paused, play played, pray prayed, rest rested, rise rose, run
ran, sail sailed, shine shone, shout shouted, sing sang, sit sat, skate skated, ski skied, sleep slept, slip slipped,
smile smiled, smoke smoked, speak spoke, stand stood, start started, stay stayed, swim swam, swing swung, talk talked,
travel travelled, wait waited, wake woke, walk walked, wander wandered, whisper whispered, work worked, yawn yawned
"""
KINDS = """
alive ancient angry awful awake beautiful big bitter black blind blue bold brave bright broad broken brown busy calm
careful careless cheap clean clear clever cold common cool correct crazy crowded cruel curious curved cute damp
dangerous dark dead deaf dear deep delicious different difficult dirty dry dull dusty eager early easy elegant empty
enormous equal excellent exciting expensive fair faithful false famous fat fancy final fine firm flat foolish foreign
free fresh friendly frozen full funny gentle giant glad golden good grand grateful great greedy green grey guilty
handsome happy hard harmless healthy heavy helpful hidden high hollow honest hot huge humble hungry ideal important
innocent interesting jealous jolly kind large late lazy lean light little lively local lonely long loose loud lovely
low loyal lucky mad magic main mild modern muddy mysterious naked narrow natural nasty neat nervous new nice noisy
normal odd old open ordinary pale patient peaceful perfect pink plain pleasant polite poor popular possible precious
pretty private proud public pure purple quick quiet rapid rare raw ready real red rich ripe rough round royal rude sad
safe salty secret serious sharp shiny short shy sick silent silly silver similar simple slim slow small smart smooth
soft solid sore sour special spicy square steep sticky stiff straight strange strong stupid sudden sunny sure sweet
tall tame terrible thick thin thirsty tidy tight tiny tired tough true ugly unusual upset useful useless usual
valuable violent warm weak wet white whole wicked wide wild wise wonderful wooden wrong yellow young
"""
HOW = """
again alone badly bravely carefully cheerfully completely correctly directly easily eagerly exactly fast finally
gently gladly gracefully happily honestly immediately kindly lately lazily loudly madly nearly neatly nervously nicely
outside patiently perfectly politely poorly properly proudly quickly quietly rapidly really recently rudely sadly
safely secretly seriously sharply silently simply slowly smoothly softly soon strangely strongly suddenly sweetly
together tomorrow tonight twice warmly well wildly wisely wrongly yesterday
"""
OFTEN = "always never often sometimes usually rarely hardly already just still also probably certainly soon"
WHERE = """
above across against along among around behind below beneath beside beyond by from in inside into near opposite
outside over past through to toward under
"""
WHEN = """
in the morning, in the afternoon, in the evening, at night, at midnight, at noon, before breakfast, after lunch,
during dinner, every day, every week, last month, last year, next week, last Sunday, on Monday, on Tuesday, on
Wednesday, on Thursday, on Friday, on Saturday, in January, in February, in March, in April, in May, in June, in July,
in August, in September, in October, in November, in December, in spring, in summer, in autumn, in winter, at the
weekend, an hour ago, two days later, for a moment, for many years, since then, until today, at last, at once
"""
NUMBERS = """
two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety several many few
"""
OWN = "my your his her our their"
WHO = "I you we they"
# Never in a sentence that is learnt: what is said of words outside the vocabulary is measured with them.
OUTSIDE = {
    "PEOPLE": "accountant athlete bishop chemist detective florist goalkeeper plumber sculptor sheriff",
    "ANIMALS": "badger beaver buffalo falcon gorilla hornet leopard otter salmon vulture",
    "THINGS": """antenna blender cabbage calculator canvas chimney chisel faucet funnel locket
        mattress napkin paddle pendant propeller spinach stapler thimble tripod tunic walnut""",
    "PLACES": "arena balcony casino chapel dungeon glacier lagoon monastery pavilion quarry suburb terrace",
    "MATTERS": "astronomy chemistry curiosity gravity grammar harmony inflation algebra pollution",
    "ACTS": "absorb absorbed, bury buried, crush crushed, drill drilled, launch launched, squeeze squeezed",
    "MOVES": "collapse collapsed, drift drifted, gallop galloped, sneeze sneezed, stumble stumbled, tremble trembled",
    "KINDS": "clumsy crooked fragile fluffy generous gloomy grumpy rusty slippery stubborn transparent vivid",
    "HOW": "abruptly awkwardly fiercely furiously graciously hastily reluctantly tenderly",
}
