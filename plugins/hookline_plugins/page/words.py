"""The words of the page, in each language."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LANGUAGES", "WORDS", "language_of"]

LANGUAGES = {"en": "English", "zh": "中文"}
TEXTS = {
    "title": ("Feedback", "反馈"),
    "label": ("Answer", "作答"),
    "team": ("Team", "团队"),
    "leave": ("Sign out", "退出"),
    "shortcuts": ("Keys", "快捷键"),
    "theme": ("Dark or light", "深色或浅色"),
    "guidelines": ("Guidelines", "标注指南"),
    "earlier": ("Earlier answers", "已答题目"),
    "undo": ("Change the last answer", "修改上一题"),
    "skip": ("Skip", "跳过"),
    "submit": ("Submit", "提交"),
    "comment": ("Comment (optional)", "备注（可选）"),
    "conversation": ("Conversation", "对话"),
    "answer": ("Answer", "回答"),
    "loading": ("Loading the next question …", "正在加载下一题……"),
    "nothing": (
        "There is nothing to answer now. This page looks again every few seconds.",
        "现在没有题目。本页每隔几秒会重新查看。",
    ),
    "saved": ("Saved", "已保存"),
    "saving": ("Saving …", "正在保存……"),
    "unsaved": (
        "Not saved yet: {why}. Trying again; keep this page open.",
        "尚未保存：{why}。正在重试，请不要关闭本页。",
    ),
    "problem": ("This did not work: {why}", "操作失败：{why}"),
    "progress": (
        "{answers} answered, {skips} skipped, {minutes} minutes",
        "已答 {answers} 题，跳过 {skips} 题，用时 {minutes} 分钟",
    ),
    "draft": ("A draft of yours is back.", "已恢复您的草稿。"),
    "q_comparison": ("Which answer is better?", "哪个回答更好？"),
    "q_rating": ("How good is this answer?", "这个回答怎么样？"),
    "q_ranking": ("Put the answers in order, the best first.", "请把回答从好到坏排序。"),
    "q_correction": ("Correct the answer.", "请修改这个回答。"),
    "q_thumb": ("Do you like this answer?", "您喜欢这个回答吗？"),
    "q_spans": ("Mark parts of the answer.", "请标出回答中的片段。"),
    "better": ("{side} is better", "{side} 更好"),
    "tie": ("Equally good", "一样好"),
    "both_bad": ("Both are bad", "都不好"),
    "strength": ("How much better?", "好多少？"),
    "strength_1": ("Slightly", "略好"),
    "strength_2": ("Clearly", "明显更好"),
    "strength_3": ("By far", "好得多"),
    "up": ("Yes", "喜欢"),
    "down": ("No", "不喜欢"),
    "place": ("Place of {side}", "{side} 的名次"),
    "unranked": ("not ranked", "未排序"),
    "changes": ("Your changes", "您的修改"),
    "no_changes": ("Nothing is changed yet.", "还没有修改。"),
    "nothing_chosen": ("Nothing is chosen yet.", "还没有选择。"),
    "rows_left": ("Not every row has a mark yet.", "还有行没有打分。"),
    "marked": ("Marked parts", "已标片段"),
    "nothing_marked": ("Nothing is marked.", "还没有标注。"),
    "remove": ("Remove", "删除"),
    "reason": ("Why do you skip?", "为什么跳过？"),
    "reason_unclear": ("The question is unclear", "题目不清楚"),
    "reason_expertise": ("I do not know enough", "我不了解这个领域"),
    "reason_harmful": ("Harmful or private content", "有害或涉及隐私"),
    "reason_broken": ("It is not shown properly", "显示不正常"),
    "cancel": ("Cancel", "取消"),
    "close": ("Close", "关闭"),
    "change_keys": ("Press a new key for: {action}", "请为“{action}”按一个新键"),
    "restore": ("Restore all keys", "恢复默认快捷键"),
    "once": ("Submit at once when I choose", "选择后立即提交"),
    "editing": ("You are changing an earlier answer.", "您正在修改以前的回答。"),
    "back": ("Back to the next question", "回到下一题"),
    "user": ("User", "用户"),
    "assistant": ("Assistant", "助手"),
    "system": ("System", "系统"),
    "tool": ("Tool", "工具"),
    "hello": (
        "Come in by the link that you were given. It works once; ask your coordinator for another.",
        "请用发给您的链接进入。链接只能使用一次；如需新链接，请联系协调员。",
    ),
    "come_in": ("Come in", "进入"),
    "enter": ("You were invited to give feedback.", "邀请您提供反馈。"),
    "image": ("Image of the conversation", "对话中的图片"),
    "find": ("Show only names, items and questions with", "只显示包含以下文字的名称、题目和问题"),
    "found": ("{shown} of {all} annotators", "{all} 人中的 {shown} 人"),
    "name": ("Name", "名称"),
    "role": ("Role", "角色"),
    "answers": ("Answers", "回答"),
    "skips": ("Skips", "跳过"),
    "time": ("Active time", "有效时间"),
    "agreement": ("Agreement", "一致率"),
    "gold": ("Known items", "已知答案题"),
    "repeats": ("Repeats", "重复题"),
    "first": ("First preferred", "偏好第一个"),
    "verdict": ("Verdict", "结论"),
    "invite": ("Invite", "邀请"),
    "link": (
        "Give this link to {name}. It is shown once and works once.",
        "请把此链接交给 {name}。链接只显示一次，只能使用一次。",
    ),
    "key": ("This is the key of {name}. It is shown once.", "这是 {name} 的密钥，只显示一次。"),
    "annotator": ("annotator", "标注员"),
    "coordinator": ("coordinator", "协调员"),
    "application": ("application", "应用"),
    "forget": ("Remove, and delete all answers", "移除并删除全部回答"),
    "sure": ("Really remove {name}?", "确定移除 {name}？"),
    "really_forget": (
        "Really delete everything that {name} answered? This cannot be undone.",
        "确定删除 {name} 的全部回答？此操作无法撤销。",
    ),
    "queue": ("Queue", "队列"),
    "queue_said": (
        "{items} items, {complete} complete, {events} events",
        "{items} 个题目，{complete} 个已完成，{events} 条记录",
    ),
    "alpha": ("Krippendorff's α", "Krippendorff α"),
    "decide": ("Answers that contradict each other", "互相矛盾的回答"),
    "decide_now": ("Decide them one after the other", "逐一裁定"),
    "they_said": ("What the annotators said", "标注员的回答"),
    "nothing_to_decide": (
        "There is nothing to decide now. This page looks again every few seconds.",
        "现在没有需要裁定的题目。本页每隔几秒会重新查看。",
    ),
    "progress_decided": (
        "{answers} decided, {skips} open, {minutes} minutes",
        "已裁定 {answers} 题，待裁定 {skips} 题，用时 {minutes} 分钟",
    ),
    "contest": ("Which model is better", "哪个模型更好"),
    "against": ("{other} against {baseline}", "{other} 对 {baseline}"),
    "exports": ("Downloads", "下载"),
    "none_yet": ("Nothing yet.", "暂无。"),
    "kind": ("Kind", "类型"),
    "ranking_help": (
        "A digit chooses an answer; the arrows up and down move it; T ties it with the one above; 0 takes it out. Or drag.",
        "数字键选中回答，上下键移动，T 键与上一个并列，0 键取消排序。也可以拖动。",
    ),
    "spans_help": (
        "Arrow keys move by words, with Shift they select; a digit marks the selection; Delete removes a mark.",
        "方向键按词移动，按住 Shift 选择；数字键标注所选；Delete 删除光标处的标注。",
    ),
    "rating_help": (
        "The key on a mark sets it; the arrows left and right step to the marks beside it.",
        "按分数上标出的键打分；左右键调到相邻的分数。",
    ),
    "slider_help": (
        "The arrows left and right move the slider; it begins in the middle.",
        "左右键移动滑块，从中间开始。",
    ),
    "rows_help": ("The arrows up and down choose a row.", "上下键选择行。"),
    "chat": ("Talk", "对话"),
    "chat_say": ("Write a message to the model.", "请给模型写一条消息。"),
    "chat_writing": ("The reply is being written …", "正在写回复……"),
    "chat_ready": ("The reply is complete.", "回复已写完。"),
    "chat_new": ("New conversation", "新对话"),
    "chat_back": ("Back to the conversation", "回到对话"),
    "message": ("Your message", "您的消息"),
    "send": ("Send", "发送"),
    "message_help": (
        "Enter sends it, Shift and Enter begin a new line, Escape leaves the field.",
        "Enter 发送，Shift+Enter 换行，Esc 离开输入框。",
    ),
    "take_back": ("Take the message back", "撤回消息"),
    "chat_again": ("Ask again", "重新请求"),
    "replies": ("Replies", "回复"),
    "goes_on": ("Saved. The conversation goes on with answer {side}.", "已保存。对话以回答 {side} 继续。"),
    "chat_same": ("Both replies are the same.", "两个回复相同。"),
    "chat_empty": ("(an empty reply)", "（空回复）"),
    "chat_cut": ("It was cut off: this is the longest reply.", "回复已达最大长度，被截断。"),
    "chat_full": (
        "The conversation is too long for a model to reply. Begin a new one, or take the message back and make it shorter.",
        "对话太长，模型无法回复。请开始新对话，或撤回消息并缩短。",
    ),
    "chat_long": (
        "The message is too long for a model to reply. Take it back and make it shorter.",
        "消息太长，模型无法回复。请撤回并缩短。",
    ),
    "chat_slow": (
        "The reply took too long. Your message is kept: ask again, or take it back.",
        "回复用时过长。您的消息已保留：可重新请求或撤回。",
    ),
    "chat_stopped": (
        "The reply was not completed. Your message is kept: ask again, or take it back.",
        "回复没有写完。您的消息已保留：可重新请求或撤回。",
    ),
    "chat_broken": (
        "No reply came. Your message is kept: ask again, or take it back.",
        "没有收到回复。您的消息已保留：可重新请求或撤回。",
    ),
    "no_script": (
        "This page needs JavaScript, from this server alone.",
        "本页需要 JavaScript，且只使用本服务器上的脚本。",
    ),
}
"""Each text in English and in Chinese."""
EN = {key: english for key, (english, _) in TEXTS.items()}
ZH = {key: chinese for key, (_, chinese) in TEXTS.items()}
WORDS: Mapping[str, Mapping[str, str]] = {"en": EN, "zh": ZH}


def language_of(chosen: str, accepted: str) -> str:
    """The language of a page: what the person chose, or the first of the browser's that there is, or English."""
    if chosen in WORDS:
        return chosen
    named = [part.split(";")[0].strip().lower()[:2] for part in accepted.split(",")]
    return next((name for name in named if name in WORDS), "en")
