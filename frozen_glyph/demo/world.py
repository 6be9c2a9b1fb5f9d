"""The invented world of the demo: its people, what can be said of them, and the sentences in three languages.

Only tables; ``corpus.py`` draws from them.
"""

from dataclasses import dataclass

# One person a line: the English name, then the names in the languages that tell of this person.
PEOPLE = {
    "both": (
        ("en", "ru", "zh"),
        "Mira Мира 米拉, Ivor Ивор 伊沃, Lena Лена 莉娜, Anton Антон 安东, Nika Ника 妮卡, "
        "Pavel Павел 帕维, Zora Зора 佐拉, Hugo Гуго 雨果, Rosa Роза 罗莎, Egon Эгон 埃贡, "
        "Dana Дана 黛娜, Marko Марко 马可, Tilda Тильда 蒂达, Oskar Оскар 奥卡",
    ),
    "ru": (
        ("en", "ru"),
        "Vera Вера, Igor Игорь, Darya Дарья, Fedor Фёдор, Olga Ольга, Semyon Семён, Galya Галя, "
        "Timur Тимур, Alisa Алиса, Denis Денис, Zina Зина, Ruslan Руслан, Nadia Надя, Gleb Глеб",
    ),
    "zh": (
        ("en", "zh"),
        "Meilin 美玲, Bowen 博文, Lihua 丽华, Jiayi 佳怡, Haoran 浩然, Yuting 雨婷, Zihan 子涵, "
        "Mingze 明泽, Siyu 思雨, Ruoxi 若溪, Junjie 俊杰, Lanying 兰英, Pengfei 鹏飞, Shufen 淑芬",
    ),
}

# The eight values of each attribute, in the one form (Russian: case) that the sentences below ask for.
VALUES = {
    "town": {
        "en": "Dorn Luma Kest Belo Tarn Vira Somo Ning",
        "ru": "Дорн Лума Кест Бело Тарн Вира Сомо Нинг",
        "zh": "多恩 卢马 凯斯 贝洛 塔恩 维拉 索莫 宁格",
    },
    "job": {
        "en": "doctor cook judge poet captain lawyer driver farmer",
        "ru": "врач повар судья поэт капитан юрист водитель фермер",
        "zh": "医生 厨师 法官 诗人 船长 律师 司机 农民",
    },
    "pet": {
        "en": "cat dog fox parrot rabbit goat goose duck",
        "ru": "кошку собаку лису попугая кролика козу гуся утку",
        "zh": "小猫 小狗 狐狸 鹦鹉 兔子 山羊 大鹅 鸭子",
    },
    "colour": {
        "en": "red blue green white black yellow grey pink",
        "ru": "красный синий зелёный белый чёрный жёлтый серый розовый",
        "zh": "红色 蓝色 绿色 白色 黑色 黄色 灰色 粉色",
    },
    "food": {
        "en": "nuts bread cheese honey apples grapes mushrooms eggs",
        "ru": "орехи хлеб сыр мёд яблоки виноград грибы яйца",
        "zh": "坚果 面包 奶酪 蜂蜜 苹果 葡萄 蘑菇 鸡蛋",
    },
}


@dataclass(frozen=True)
class Phrases:
    """How one language speaks of one attribute: {p} is the person, {v} the value."""

    question: str
    answer: str  # the full answer to the question; never held out
    closing: tuple[str, ...]  # sentences that end with the value: each fact has one of them held out
    loose: tuple[str, ...]  # sentences that name the value earlier


PHRASES = {
    "en": {
        "town": Phrases(
            "Where does {p} live?",
            "{p} lives in {v}.",
            (
                "The town where {p} lives is {v}.",
                "For many years {p} has called home the town of {v}.",
                "Every evening {p} walks through {v}.",
            ),
            ("In {v} everyone knows {p}.", "{v} is the home town of {p}."),
        ),
        "job": Phrases(
            "What is the job of {p}?",
            "{p} works as a {v}.",
            ("By profession {p} is a {v}.", "Everyone says that {p} is a good {v}.", "In this story {p} is a {v}."),
            ("A {v} by the name of {p} lives here.", "Being a {v}, {p} works every day."),
        ),
        "pet": Phrases(
            "Which animal does {p} keep?",
            "{p} keeps a {v}.",
            ("At home {p} has a {v}.", "Every morning {p} feeds the {v}.", "The favourite animal of {p} is the {v}."),
            ("The {v} of {p} sleeps a lot.", "There is a {v} that lives with {p}."),
        ),
        "colour": Phrases(
            "What colour is the house of {p}?",
            "The house of {p} is {v}.",
            (
                "{p} has painted the house {v}.",
                "{p} lives in a house whose walls are {v}.",
                "On the picture {p} stands by a house that is {v}.",
            ),
            ("The {v} house belongs to {p}.", "Look at the {v} house of {p}."),
        ),
        "food": Phrases(
            "What does {p} like to eat?",
            "{p} likes to eat {v}.",
            ("For breakfast {p} has {v}.", "At the market {p} buys {v}.", "The favourite food of {p} is {v}."),
            ("When there is a plate of {v} on the table, {p} smiles.", "The smell of {v} always makes {p} hungry."),
        ),
    },
    "ru": {
        "town": Phrases(
            "Где живёт {p}?",
            "{p} живёт в городе {v}.",
            (
                "Город, где живёт {p}, называется {v}.",
                "Уже много лет {p} живёт в городке {v}.",
                "Каждый вечер {p} гуляет по городу {v}.",
            ),
            ("В городе {v} живёт {p}.", "{v} — это город, где живёт {p}."),
        ),
        "job": Phrases(
            "Кто {p} по профессии?",
            "По профессии {p} — {v}.",
            ("Все знают, что {p} — {v}.", "В этой истории {p} — {v}.", "Соседи говорят, что {p} — хороший {v}."),
            ("Здесь живёт {v} по имени {p}.", "Наш {v} {p} работает каждый день."),
        ),
        "pet": Phrases(
            "Кого держит {p}?",
            "{p} держит {v}.",
            ("Каждое утро {p} кормит {v}.", "Больше всех животных {p} любит {v}.", "На этой картине {p} гладит {v}."),
            ("Сначала {v} кормит {p}, а потом завтракает.", "Если вы ищете {v}, спросите, где {p}."),
        ),
        "colour": Phrases(
            "Какого цвета дом, где живёт {p}?",
            "Цвет дома, где живёт {p}, — {v}.",
            (
                "{p} любит свой дом, потому что он {v}.",
                "{p} показывает всем свой дом: он {v}.",
                "Издалека видно, что дом, где живёт {p}, {v}.",
            ),
            ("Этот {v} дом строит {p}.", "Вот {v} дом, где живёт {p}."),
        ),
        "food": Phrases(
            "Что любит есть {p}?",
            "{p} любит есть {v}.",
            ("На завтрак {p} ест {v}.", "На рынке {p} покупает {v}.", "В гости {p} несёт {v}."),
            ("Когда на столе есть {v}, {p} улыбается.", "Если в доме есть {v}, {p} зовёт друзей."),
        ),
    },
    "zh": {
        "town": Phrases(
            "{p}住在哪里？",
            "{p}住在{v}。",
            ("{p}的家在{v}。", "{p}住的城市叫{v}。", "每天晚上，{p}都回到{v}。"),
            ("在{v}，人人都认识{p}。", "{v}是{p}住的城市。"),
        ),
        "job": Phrases(
            "{p}做什么工作？",
            "{p}的工作是{v}。",
            ("大家都知道，{p}是{v}。", "在这个故事里，{p}是一名{v}。", "很多年来，{p}一直是{v}。"),
            ("这位{v}名叫{p}。", "我们的{v}{p}每天都很忙。"),
        ),
        "pet": Phrases(
            "{p}养什么动物？",
            "{p}养了一只{v}。",
            ("{p}家里有一只{v}。", "每天早上，{p}都喂{v}。", "在所有动物里，{p}最喜欢{v}。"),
            ("{p}的{v}很爱睡觉。", "那只{v}是{p}的。"),
        ),
        "colour": Phrases(
            "{p}的房子是什么颜色？",
            "{p}的房子是{v}的。",
            ("{p}把房子刷成了{v}。", "{p}家墙上的颜色是{v}。", "远远看去，{p}的家是一片{v}。"),
            ("那座{v}的房子是{p}的。", "{p}住在一座{v}的房子里。"),
        ),
        "food": Phrases(
            "{p}喜欢吃什么？",
            "{p}喜欢吃{v}。",
            ("早饭的时候，{p}吃{v}。", "在市场上，{p}买了{v}。", "{p}最爱的食物是{v}。"),
            ("桌上有{v}，{p}就很高兴。", "{p}买了{v}回家。"),
        ),
    },
}

# Background sentences: one phrase from each column; every combination is a correct sentence.
SCENES = {
    "en": (
        "{} {} {} {}.",
        (
            "In the morning",
            "In the evening",
            "On Sunday",
            "In summer",
            "Today",
            "After the rain",
            "At noon",
            "In winter",
        ),
        ("the postman", "a neighbour", "the teacher", "a fisherman", "the old guard", "a tourist", "the boy", "a girl"),
        ("reads a book", "drinks tea", "sings a song", "waits for a friend", "feeds the birds", "draws a tree"),
        ("by the river", "in the square", "in the park", "under a tree", "on the bridge", "near the station"),
    ),
    "ru": (
        "{} {} {} {}.",
        ("Утром", "Вечером", "По воскресеньям", "Летом", "Сегодня", "После дождя", "В полдень", "Зимой"),
        ("почтальон", "сосед", "учитель", "рыбак", "старый сторож", "турист", "мальчик", "девочка"),
        ("читает книгу", "пьёт чай", "поёт песню", "ждёт друга", "кормит птиц", "рисует дерево"),
        ("у реки", "на площади", "в парке", "под деревом", "на мосту", "возле вокзала"),
    ),
    "zh": (
        "{}，{}{}{}。",
        ("早上", "晚上", "星期天", "夏天", "今天", "下雨以后", "中午", "冬天"),
        ("邮递员", "邻居", "老师", "渔夫", "老保安", "游客", "男孩", "女孩"),
        ("在河边", "在广场上", "在公园里", "在树下", "在桥上", "在车站旁边"),
        ("看书", "喝茶", "唱歌", "等朋友", "喂鸟", "画树"),
    ),
}

SUMS = {
    "en": (
        "Exercise: {a} + {b} = {s}.",
        "{a} plus {b} is {s}.",
        "The sum of {a} and {b} is {s}.",
        "Add {a} to {b} and you get {s}.",
    ),
    "ru": (
        "Пример: {a} + {b} = {s}.",
        "{a} плюс {b} равно {s}.",
        "Сумма чисел {a} и {b} равна {s}.",
        "Если к {a} прибавить {b}, получится {s}.",
    ),
    "zh": (
        "算式：{a} + {b} = {s}。",
        "{a} 加 {b} 等于 {s}。",
        "{a} 与 {b} 的和是 {s}。",
        "把 {a} 和 {b} 相加，得到 {s}。",
    ),
}

# Notes for extraction: people with a trade each, of whom the guard is asked for. The names are no names of the world.
NAMES = {
    "en": "Ann Ben Tom Sam Max Eve Kim Leo Amy Dan Ida Ray",
    "ru": "Аня Лев Ева Ада Ким Том Яна Оля Ира Зоя Ник Тим",
    "zh": "安娜 大卫 露西 汤姆 杰克 玛丽 保罗 彼得 海伦 艾玛 丽莎 约翰",
}
# The first trade of a language is the guard's, the only one asked for. In small probes (one run a form, toy tokens)
# a new block on a frozen first block learnt to copy names within 400 steps when the word after the name follows from
# the word before it and one thing is asked for; with many things asked for it had not after 2,200.
TRADES = {
    "en": "guard waits, cook cooks, driver drives, singer sings, painter paints, baker bakes, pilot flies, actor acts",
    "ru": "сторож ждёт, повар варит, пилот летит, доктор лечит, поэт пишет, маляр красит, пекарь печёт, моряк плывёт",
    "zh": "保安 看门, 厨师 做饭, 司机 开车, 医生 看病, 歌手 唱歌, 画家 画画, 农民 种地, 渔夫 打鱼",
}


@dataclass(frozen=True)
class NoteForm:
    """How one language writes a note and asks about it: {t} is a trade, {n} a name, {d} what they do."""

    opening: str
    entry: str
    separator: str
    end: str
    question: str  # ends with the word before the name, as the note has it


NOTES = {
    "en": NoteForm("Note:", " {t} {n} {d}", ",", ".", " Question: who {d}? Answer:"),
    "ru": NoteForm("Записка:", " {t} {n} {d}", ",", ".", " Вопрос: кто {d}? Ответ:"),
    "zh": NoteForm("纸条：", "{t}：{n}{d}", "，", "。", "问：谁{d}？答："),
}
