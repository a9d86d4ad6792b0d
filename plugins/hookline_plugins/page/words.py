"""The words of the page, in each language."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LANGUAGES", "WORDS", "language_of"]

LANGUAGES = {"en": "English", "zh": "中文"}
EN = {
    "title": "Feedback", "label": "Answer", "team": "Team", "leave": "Sign out", "shortcuts": "Keys", "theme": "Dark or light",
    "guidelines": "Guidelines", "earlier": "Earlier answers", "undo": "Change the last answer", "skip": "Skip", "submit": "Submit",
    "comment": "Comment (optional)", "conversation": "Conversation", "answer": "Answer", "loading": "Loading the next question …",
    "nothing": "There is nothing to answer now. This page looks again every few seconds.", "saved": "Saved", "saving": "Saving …",
    "unsaved": "Not saved yet: {why}. Trying again; keep this page open.", "problem": "This did not work: {why}",
    "progress": "{answers} answered, {skips} skipped, {minutes} minutes", "draft": "A draft of yours is back.",
    "q_comparison": "Which answer is better?", "q_rating": "How good is this answer?",
    "q_ranking": "Put the answers in order, the best first.",
    "q_correction": "Correct the answer.", "q_thumb": "Do you like this answer?", "q_spans": "Mark parts of the answer.",
    "better": "{side} is better", "tie": "Equally good", "both_bad": "Both are bad", "strength": "How much better?",
    "strength_1": "Slightly", "strength_2": "Clearly", "strength_3": "By far", "up": "Yes", "down": "No",
    "place": "Place of {side}", "unranked": "not ranked", "changes": "Your changes", "no_changes": "Nothing is changed yet.",
    "marked": "Marked parts", "nothing_marked": "Nothing is marked.", "remove": "Remove", "reason": "Why do you skip?",
    "reason_unclear": "The question is unclear", "reason_expertise": "I do not know enough", "reason_harmful": "Harmful or private content",
    "reason_broken": "It is not shown properly", "cancel": "Cancel", "close": "Close", "change_keys": "Press a new key for: {action}",
    "restore": "Restore all keys", "once": "Submit at once when I choose", "editing": "You are changing an earlier answer.",
    "back": "Back to the next question", "user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool",
    "hello": "Come in by the link that you were given. It works once; ask your coordinator for another.",
    "come_in": "Come in", "enter": "You were invited to give feedback.", "image": "Image of the conversation",
    "name": "Name", "role": "Role", "answers": "Answers", "skips": "Skips", "time": "Active time", "agreement": "Agreement",
    "gold": "Known items", "repeats": "Repeats", "first": "First preferred", "verdict": "Verdict", "invite": "Invite",
    "link": "Give this link to {name}. It is shown once and works once.", "key": "This is the key of {name}. It is shown once.",
    "annotator": "annotator", "coordinator": "coordinator", "application": "application", "forget": "Remove, and delete all answers",
    "sure": "Really remove {name}?", "really_forget": "Really delete everything that {name} answered? This cannot be undone.",
    "queue": "Queue", "queue_said": "{items} items, {complete} complete, {events} events", "alpha": "Krippendorff's α",
    "decide": "Answers that contradict each other", "decide_now": "Decide them one after the other",
    "they_said": "What the annotators said",
    "nothing_to_decide": "There is nothing to decide now. This page looks again every few seconds.",
    "progress_decided": "{answers} decided, {skips} open, {minutes} minutes",
    "contest": "Which model is better", "against": "{other} against {baseline}",
    "exports": "Downloads", "none_yet": "Nothing yet.", "kind": "Kind",
    "ranking_help": "A digit chooses an answer; the arrows up and down move it; T ties it with the one above; 0 takes it out. Or drag.",
    "spans_help": "Arrow keys move by words, with Shift they select; a digit marks the selection; Delete removes a mark.",
    "rating_help": "A digit sets the mark of the chosen row; the arrows up and down choose a row.",
    "chat": "Talk", "chat_say": "Write a message to the model.", "chat_writing": "The reply is being written …",
    "chat_ready": "The reply is complete.",
    "chat_new": "New conversation", "chat_back": "Back to the conversation", "message": "Your message", "send": "Send",
    "message_help": "Enter sends it, Shift and Enter begin a new line, Escape leaves the field.", "take_back": "Take the message back",
    "chat_again": "Ask again", "replies": "Replies", "goes_on": "Saved. The conversation goes on with answer {side}.",
    "chat_same": "Both replies are the same.", "chat_empty": "(an empty reply)", "chat_cut": "It was cut off: this is the longest reply.",
    "chat_full": "The conversation is too long for a model to reply. Begin a new one, or take the message back and make it shorter.",
    "chat_long": "The message is too long for a model to reply. Take it back and make it shorter.",
    "chat_slow": "The reply took too long. Your message is kept: ask again, or take it back.",
    "chat_stopped": "The reply was not completed. Your message is kept: ask again, or take it back.",
    "chat_broken": "No reply came. Your message is kept: ask again, or take it back.",
    "no_script": "This page needs JavaScript, from this server alone.",
}  # fmt: skip
ZH = {
    "title": "反馈", "label": "作答", "team": "团队", "leave": "退出", "shortcuts": "快捷键", "theme": "深色或浅色",
    "guidelines": "标注指南", "earlier": "已答题目", "undo": "修改上一题", "skip": "跳过", "submit": "提交",
    "comment": "备注（可选）", "conversation": "对话", "answer": "回答", "loading": "正在加载下一题……",
    "nothing": "现在没有题目。本页每隔几秒会重新查看。", "saved": "已保存", "saving": "正在保存……",
    "unsaved": "尚未保存：{why}。正在重试，请不要关闭本页。", "problem": "操作失败：{why}",
    "progress": "已答 {answers} 题，跳过 {skips} 题，用时 {minutes} 分钟", "draft": "已恢复您的草稿。",
    "q_comparison": "哪个回答更好？", "q_rating": "这个回答怎么样？", "q_ranking": "请把回答从好到坏排序。",
    "q_correction": "请修改这个回答。", "q_thumb": "您喜欢这个回答吗？", "q_spans": "请标出回答中的片段。",
    "better": "{side} 更好", "tie": "一样好", "both_bad": "都不好", "strength": "好多少？",
    "strength_1": "略好", "strength_2": "明显更好", "strength_3": "好得多", "up": "喜欢", "down": "不喜欢",
    "place": "{side} 的名次", "unranked": "未排序", "changes": "您的修改", "no_changes": "还没有修改。",
    "marked": "已标片段", "nothing_marked": "还没有标注。", "remove": "删除", "reason": "为什么跳过？",
    "reason_unclear": "题目不清楚", "reason_expertise": "我不了解这个领域", "reason_harmful": "有害或涉及隐私",
    "reason_broken": "显示不正常", "cancel": "取消", "close": "关闭", "change_keys": "请为“{action}”按一个新键",
    "restore": "恢复默认快捷键", "once": "选择后立即提交", "editing": "您正在修改以前的回答。",
    "back": "回到下一题", "user": "用户", "assistant": "助手", "system": "系统", "tool": "工具",
    "hello": "请用发给您的链接进入。链接只能使用一次；如需新链接，请联系协调员。",
    "come_in": "进入", "enter": "邀请您提供反馈。", "image": "对话中的图片",
    "name": "名称", "role": "角色", "answers": "回答", "skips": "跳过", "time": "有效时间", "agreement": "一致率",
    "gold": "已知答案题", "repeats": "重复题", "first": "偏好第一个", "verdict": "结论", "invite": "邀请",
    "link": "请把此链接交给 {name}。链接只显示一次，只能使用一次。", "key": "这是 {name} 的密钥，只显示一次。",
    "annotator": "标注员", "coordinator": "协调员", "application": "应用", "forget": "移除并删除全部回答",
    "sure": "确定移除 {name}？", "really_forget": "确定删除 {name} 的全部回答？此操作无法撤销。",
    "queue": "队列", "queue_said": "{items} 个题目，{complete} 个已完成，{events} 条记录", "alpha": "Krippendorff α",
    "decide": "互相矛盾的回答", "decide_now": "逐一裁定", "they_said": "标注员的回答",
    "nothing_to_decide": "现在没有需要裁定的题目。本页每隔几秒会重新查看。",
    "progress_decided": "已裁定 {answers} 题，待裁定 {skips} 题，用时 {minutes} 分钟",
    "contest": "哪个模型更好", "against": "{other} 对 {baseline}",
    "exports": "下载", "none_yet": "暂无。", "kind": "类型",
    "ranking_help": "数字键选中回答，上下键移动，T 键与上一个并列，0 键取消排序。也可以拖动。",
    "spans_help": "方向键按词移动，按住 Shift 选择；数字键标注所选；Delete 删除光标处的标注。",
    "rating_help": "数字键给选中的一行打分；上下键选择行。",
    "chat": "对话", "chat_say": "请给模型写一条消息。", "chat_writing": "正在写回复……", "chat_ready": "回复已写完。",
    "chat_new": "新对话", "chat_back": "回到对话", "message": "您的消息", "send": "发送",
    "message_help": "Enter 发送，Shift+Enter 换行，Esc 离开输入框。", "take_back": "撤回消息",
    "chat_again": "重新请求", "replies": "回复", "goes_on": "已保存。对话以回答 {side} 继续。",
    "chat_same": "两个回复相同。", "chat_empty": "（空回复）", "chat_cut": "回复已达最大长度，被截断。",
    "chat_full": "对话太长，模型无法回复。请开始新对话，或撤回消息并缩短。",
    "chat_long": "消息太长，模型无法回复。请撤回并缩短。",
    "chat_slow": "回复用时过长。您的消息已保留：可重新请求或撤回。",
    "chat_stopped": "回复没有写完。您的消息已保留：可重新请求或撤回。",
    "chat_broken": "没有收到回复。您的消息已保留：可重新请求或撤回。",
    "no_script": "本页需要 JavaScript，且只使用本服务器上的脚本。",
}  # fmt: skip
WORDS: Mapping[str, Mapping[str, str]] = {"en": EN, "zh": ZH}


def language_of(chosen: str, accepted: str) -> str:
    """The language of a page: what the person chose, or the first of the browser's that there is, or English."""
    if chosen in WORDS:
        return chosen
    named = [part.split(";")[0].strip().lower()[:2] for part in accepted.split(",")]
    return next((name for name in named if name in WORDS), "en")
