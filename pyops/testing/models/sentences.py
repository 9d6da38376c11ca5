"""64 English sentences of 1 to about 60 words on unlike subjects, to compare embeddings on."""

SENTENCES = (
    "Rain.",
    "Call me back.",
    "The invoice is wrong.",
    "Where did you park the car?",
    "Our train leaves at ten past nine.",
    "She plays the cello in a small orchestra.",
    "The soup needs more salt and a little lemon.",
    "A red kite circled above the harvested field.",
    "Please reset my password, I cannot log in.",
    "The museum is closed on Mondays and on public holidays.",
    "Interest rates rose by a quarter of a percent.",
    "He fixed the leaking tap with a new rubber washer.",
    "Two goals in the last five minutes decided the match.",
    "The patient was given antibiotics for ten days.",
    "Add the flour slowly while stirring the butter.",
    "The bridge was built in 1894 and widened in 1962.",
    "I would like to cancel my subscription at the end of the month.",
    "The court dismissed the appeal for lack of evidence.",
    "Water boils at a lower temperature high in the mountains.",
    "My daughter learned to ride a bicycle this weekend.",
    "The battery lasts about eleven hours when the screen is dim.",
    "Fishermen reported the largest herring catch in twenty years.",
    "You can return the shoes within thirty days if they were not worn.",
    "The orchestra tuned while late guests looked for their seats.",
    "A sorted list can be searched in logarithmic time.",
    "The volcano has been quiet since the spring of last year.",
    "We sanded the old table and gave it three coats of oil.",
    "The committee could not agree on a date for the next meeting.",
    "Bees find their way home by the position of the sun.",
    "The elevator is out of order, so take the stairs behind the kitchen.",
    "Several shops in the old town have changed hands this winter.",
    "Multiply the width by the height to obtain the area.",
    "He apologised for the delay and offered us a free dessert.",
    "The new vaccine needs to be stored far below freezing.",
    "Their first album was recorded in a barn with borrowed microphones.",
    "The glacier has lost a third of its volume since the first survey.",
    "A function that calls itself needs a case in which it stops.",
    "The landlord promised to replace the windows before the cold season.",
    "Coffee prices climbed after frost damaged the harvest in the south.",
    "Turn left at the lighthouse and follow the gravel road to the beach.",
    "The translator kept the rhyme but lost some of the humour.",
    "Nobody in the village remembered when the clock had last been right.",
    "The rocket's second stage failed to ignite, and the satellite was lost.",
    "Our neighbours feed a fox that visits their garden every evening.",
    "The compiler warns about the unused variable, but the program runs.",
    "Students who slept well remembered more words on the following day.",
    "The tax office accepts the form on paper or through its web page.",
    "A cracked heat exchanger was found to be the cause of the power cut.",
    "The painter mixed his blues from a mineral that came across the sea.",
    "If the alarm sounds, leave by the nearest exit and gather at the gate.",
    "The novel follows three sisters through a war that nobody names.",
    "Because the well had dried up, the monks carried water from the river "
    "to the upper terrace twice a day.",
    "The city will close the main street to cars on Sundays, and shop owners "
    "are divided on whether it helps them.",
    "Store the dough covered in the fridge overnight, then let it come to room "
    "temperature before you shape the loaves.",
    "A memory leak in the image decoder made the server slower each hour until "
    "somebody restarted it by hand.",
    "The biologists tagged forty turtles and found that half of them returned to "
    "the very beach on which they had hatched.",
    "After the second quarter the company expects lower sales of printers, while "
    "the repair business should grow by about six percent.",
    "She had packed only a light coat, a notebook and a map that was twenty years "
    "out of date, and yet she arrived before all of us.",
    "To measure the resistance, disconnect the supply, wait a minute for the "
    "capacitors to discharge, and hold the probes to both ends.",
    "The referee stopped play for nearly ten minutes while the medical team looked "
    "after the goalkeeper, who was later able to walk off the pitch to applause.",
    "Farmers in the valley share one combine harvester, drawing lots each summer for "
    "the order in which it visits their fields, and helping whoever comes last.",
    "When the archive was moved to the new building, a box of letters turned up behind "
    "a shelf; they show that the architect had planned a garden on the roof from the "
    "very beginning, and that money alone had kept it from being built.",
    "The study followed four thousand nurses over eleven years and found that those who "
    "changed between day and night shifts every week were more often ill than those who "
    "kept one rhythm for a month, even when age, smoking and exercise were taken into "
    "account.",
    "Anyone who has tried to assemble a wardrobe from a printed sheet of drawings knows "
    "the moment at which one panel turns out to be the wrong way round, every screw has "
    "to come out again, and the person who was reading the instructions aloud quietly "
    "leaves the room to make tea.",
)
